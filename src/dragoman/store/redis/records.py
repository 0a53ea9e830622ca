"""How are requests, ends, sessions and nodes written down on the server, and read again?

Every record carries the number of its schema. What cannot be read, by whomever it was written, is counted and reads as
missing: one bad record stops nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from dragoman.core.capability import Pair, Service, need
from dragoman.core.ids import InstanceId, JobId, NodeId, RequestId, SessionId, TenantId, TraceId
from dragoman.core.job import JobRequest, Speech
from dragoman.core.lifecycle import JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import Job, Owed, Parked, Place, Resumed, SessionRecord
from dragoman.store.redis.poison import Complain
from dragoman.store.registry import Instance, NodeLoad, NodeSnapshot, PoolPlan

SCHEMA: Final = "1"

_DIGITS_MAX: Final = 18

T = TypeVar("T")


class UnreadableError(ValueError):
    """A record that is none of ours, or of a schema that we do not know."""


class _Request(Struct, frozen=True, array_like=True):
    """A JobRequest, flat. New fields go to the end, with a default."""

    session_id: SessionId
    request_id: RequestId
    utterance_index: int
    trace_id: TraceId
    services: frozenset[Service]
    pairs: tuple[Pair, ...]
    preferred: NodeId | None
    speech: Speech
    deadline_in_ms: int | None
    tenant_id: TenantId | None
    priority: int
    need_tenant: TenantId | None


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(_Request).decode
_decode_terminal: Callable[[bytes], Terminal] = msgspec.msgpack.Decoder(Terminal).decode
_decode_session = msgspec.msgpack.Decoder(SessionRecord).decode
_decode_loads = msgspec.msgpack.Decoder(tuple[NodeLoad, ...]).decode
_decode_ids = msgspec.msgpack.Decoder(tuple[NodeId, ...]).decode
_encode_json = msgspec.json.Encoder().encode
_decode_snapshot = msgspec.json.Decoder(NodeSnapshot).decode
_decode_plan = msgspec.json.Decoder(PoolPlan).decode
_decode_instance = msgspec.json.Decoder(Instance).decode


def read(decode: Callable[[bytes], T], record: bytes) -> T:
    """A record. Raises UnreadableError."""
    try:
        return decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError, RecursionError) as error:
        # Not the record itself: there may be somebody's words in it.
        raise UnreadableError(f"{len(record)} bytes: {str(error)[:200]}") from error


# --- jobs


def write_request(request: JobRequest) -> bytes:
    """What is kept of a request. Its times go as spans: each instance has a clock of its own."""
    wanted = request.need
    return _encode(
        _Request(
            request.session_id,
            request.request_id,
            request.utterance_index,
            request.trace_id,
            wanted.services,
            wanted.pairs,
            wanted.preferred,
            request.speech,
            None if request.deadline_ms is None else request.deadline_ms - request.accepted_ms,
            request.tenant_id,
            request.priority,
            wanted.tenant,
        )
    )


def read_request(job_id: JobId, record: bytes, accepted_ms: int) -> JobRequest:
    """The request of a job that was accepted at that time of our clock."""
    kept = read(_decode_request, record)
    return JobRequest(
        job_id=job_id,
        session_id=kept.session_id,
        request_id=kept.request_id,
        utterance_index=kept.utterance_index,
        trace_id=kept.trace_id,
        need=need(kept.services, kept.pairs, kept.need_tenant, kept.preferred),
        speech=kept.speech,
        accepted_ms=accepted_ms,
        deadline_ms=None if kept.deadline_in_ms is None else accepted_ms + kept.deadline_in_ms,
        tenant_id=kept.tenant_id,
        priority=kept.priority,
    )


def write_terminal(terminal: Terminal) -> bytes:
    """How a job ended."""
    return _encode(terminal)


def read_terminal(record: bytes) -> Terminal:
    """How a job ended. Raises UnreadableError."""
    return read(_decode_terminal, record)


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """A hash as the server answers it: fields and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def read_job(job_id: JobId, fields: dict[bytes, bytes], accepted_ms: Callable[[int], int]) -> Job:
    """A job. `accepted_ms` turns a time of the server into one of ours. Raises UnreadableError."""
    if fields.get(b"v", b"").decode(errors="replace") != SCHEMA:
        raise UnreadableError(f"schema {fields.get(b'v', b'')[:20]!r}; wanted {SCHEMA!r}")
    try:
        state = JobState(fields[b"state"].decode())
        attempt = int(fields[b"attempt"])
        opened_ms = int(fields[b"opened_ms"])
        owner = InstanceId(fields[b"owner"].decode())
        node_id = NodeId(fields[b"node"].decode()) if fields[b"node"] else None
    except (KeyError, ValueError) as error:
        raise UnreadableError(f"job: {type(error).__name__} {error}") from error
    request = fields.get(b"request")
    terminal = fields.get(b"terminal")
    return Job(
        job_id,
        owner,
        None if request is None else read_request(job_id, request, accepted_ms(opened_ms)),
        state,
        attempt,
        node_id,
        None if terminal is None else read_terminal(terminal),
    )


# --- sessions


def write_session(record: SessionRecord) -> bytes:
    """What is kept of a session."""
    return _encode(record)


def write_owed(owed: Owed) -> bytes:
    """What is kept of a job whose end a session is owed."""
    return b"%d:%d" % (owed.index, owed.serial)


def read_owed(fields: dict[bytes, bytes], complain: Complain) -> tuple[Owed, ...]:
    """Every job whose end a session is owed, the lowest index first. What cannot be read is left out."""
    found: list[Owed] = []
    for field, value in fields.items():
        if field.startswith(b"owed:"):
            index, _, serial = value.partition(b":")
            try:
                found.append(Owed(JobId(field[5:].decode()), int(index), int(serial)))
            except ValueError:
                complain(UnreadableError(f"owed: {value[:40]!r}; wanted index:serial"))
    return tuple(sorted(found, key=lambda owed: (owed.index, owed.job_id)))


def read_parked(fields: dict[bytes, bytes], complain: Complain) -> tuple[Parked, ...]:
    """The terminal messages that a session has not had, as they were parked. What cannot be read is left out."""
    found: list[tuple[int, Parked]] = []
    for field, value in fields.items():
        if field.startswith(b"parked:"):
            serial, _, number = field[7:].partition(b":")
            try:
                found.append((int(number), Parked(serial=int(serial), message=read_terminal(value))))
            except ValueError as error:
                complain(UnreadableError(f"{field[:40]!r}: {error}"))
    return tuple([message for _, message in sorted(found, key=lambda item: item[0])])


def read_resumed(fields: dict[bytes, bytes], previous: bytes, complain: Complain) -> Resumed:
    """A session that goes on. Raises UnreadableError when there is nothing to go on with."""
    return Resumed(
        record=read(_decode_session, fields.get(b"record", b"")),
        parked=read_parked(fields, complain),
        owed=read_owed(fields, complain),
        place=Place(
            read_number(fields, b"serial"),
            read_number(fields, b"next"),
            read_number(fields, b"cut"),
            read_number(fields, b"seq", -1),
        ),
        previous=InstanceId(previous.decode(errors="replace")) if previous else None,
    )


def read_number(fields: dict[bytes, bytes], name: bytes, default: int = 0) -> int:
    """A count or a time; the default when what is there is none."""
    value = fields.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= _DIGITS_MAX else default


# --- instances and nodes: in JSON, for operators to read


class _Versioned(Struct):
    v: int


_version = msgspec.json.Decoder(_Versioned).decode


def _write_json(value: Any) -> bytes:
    return b'{"v":' + SCHEMA.encode() + b"," + _encode_json(value)[1:]


def _read_json(decode: Callable[[bytes], T], record: bytes) -> T:
    version = read(_version, record).v
    if str(version) != SCHEMA:
        raise UnreadableError(f"schema {version}; wanted {SCHEMA}")
    return read(decode, record)


def write_instance(instance: Instance) -> bytes:
    """What an instance says of itself."""
    return _write_json(instance)


def read_instance(record: bytes) -> Instance:
    """What an instance says of itself. Raises UnreadableError."""
    return _read_json(_decode_instance, record)


def write_plan(plan: PoolPlan) -> bytes:
    """The pools in force."""
    return _write_json(plan)


def read_plan(record: bytes) -> PoolPlan:
    """The pools in force. Raises UnreadableError."""
    return _read_json(_decode_plan, record)


def write_snapshot(snapshot: NodeSnapshot) -> bytes:
    """What the others need to know of a node."""
    return _write_json(snapshot)


def read_snapshot(record: bytes) -> NodeSnapshot:
    """What is known of a node. Raises UnreadableError."""
    return _read_json(_decode_snapshot, record)


def write_change(node_ids: tuple[NodeId, ...], loads: tuple[NodeLoad, ...]) -> tuple[bytes, bytes]:
    """Which nodes changed, and how busy nodes are."""
    return _encode(node_ids), _encode(loads)


def read_change(node_ids: bytes, loads: bytes) -> tuple[tuple[NodeId, ...], tuple[NodeLoad, ...]]:
    """Which nodes changed, and how busy nodes are. Raises UnreadableError."""
    return read(_decode_ids, node_ids), read(_decode_loads, loads)
