"""Is what was said what is heard, and is nonsense only ever called nonsense?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dragoman.protocol.codec import (
    Codec,
    FormatError,
    UnknownTypeError,
    node_client_codec,
    node_server_codec,
    session_client_codec,
    session_server_codec,
)
from dragoman.protocol.node_messages import JobResult
from dragoman.protocol.session_messages import AudioChunk, SessionInit, Utterance
from tests.support.builders import (
    a_chunk,
    a_job_result,
    a_node_heartbeat,
    a_node_register,
    a_result,
    a_session_init,
    an_utterance,
)
from tests.support.messages import DIRECTIONS, json_values, messages

MAKERS: dict[str, Callable[..., Codec[Any]]] = {
    "session_server": session_server_codec,
    "session_client": session_client_codec,
    "node_server": node_server_codec,
    "node_client": node_client_codec,
}
EVERY_KIND = [(reader, kind) for reader, kinds in DIRECTIONS.items() for kind in kinds]
FORMATS = [False, True]
JSON, MSGPACK = session_server_codec(is_binary=False), session_server_codec(is_binary=True)
NODE_JSON, NODE_MSGPACK = node_server_codec(is_binary=False), node_server_codec(is_binary=True)


def plain(message: msgspec.Struct, **changes: Any) -> dict[str, Any]:
    """A message as an object, with changes."""
    whole: dict[str, Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    return whole | changes


def with_raw_json(message: msgspec.Struct, field: str, value: bytes) -> bytes:
    return msgspec.json.encode(message)[:-1] + f',"{field}":'.encode() + value + b"}"


def with_raw_msgpack(message: msgspec.Struct, field: str, value: bytes) -> bytes:
    """A message with one more field, whose value is spelled out."""
    whole = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(message)) | {field: None})
    assert whole[-1:] == b"\xc0"
    return whole[:-1] + value


# --- what was said is heard


class Said(NamedTuple):
    reader: str
    message: Any


any_message = st.sampled_from(EVERY_KIND).flatmap(lambda one: messages(one[1]).map(lambda said: Said(one[0], said)))


@pytest.mark.parametrize("is_binary", FORMATS)
@pytest.mark.parametrize(("reader", "kind"), EVERY_KIND, ids=lambda value: getattr(value, "__name__", value))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_message_comes_back_as_it_was(
    reader: str, kind: type[msgspec.Struct], is_binary: bool, data: st.DataObject
) -> None:
    codec = MAKERS[reader](is_binary=is_binary)
    message = data.draw(messages(kind))
    assert codec.decode(codec.encode(message)) == message


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(said=any_message)
def test_null_is_the_same_as_absent(said: Said) -> None:
    absent = [name for name in said.message.__struct_fields__ if getattr(said.message, name) is None]
    for is_binary in FORMATS:
        codec = MAKERS[said.reader](is_binary=is_binary)
        wire: Any = msgspec.msgpack if is_binary else msgspec.json
        spelled_out = wire.decode(codec.encode(said.message)) | dict.fromkeys(absent)
        assert codec.decode(wire.encode(spelled_out)) == said.message


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(said=any_message, unknown=json_values)
def test_a_field_that_nobody_knows_is_ignored(said: Said, unknown: Any) -> None:
    for is_binary in FORMATS:
        codec = MAKERS[said.reader](is_binary=is_binary)
        wire: Any = msgspec.msgpack if is_binary else msgspec.json
        frame = wire.encode({"x_new": unknown} | wire.decode(codec.encode(said.message)))
        assert codec.decode(frame) == said.message


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(said=any_message)
def test_what_may_be_absent_is_not_sent(said: Said) -> None:
    codec = MAKERS[said.reader](is_binary=False)
    sent = json.loads(codec.encode(said.message))
    assert not [name for name in sent if sent[name] is None]


def test_bytes_are_base64_in_json_and_raw_in_msgpack() -> None:
    utterance = an_utterance(audio=b"\xff\x00")
    assert json.loads(JSON.encode(utterance))["audio"] == "/wA="
    assert msgspec.msgpack.decode(MSGPACK.encode(utterance))["audio"] == b"\xff\x00"


def test_a_node_without_a_name_may_say_null() -> None:
    register = plain(a_node_register(), node_id=None)
    assert NODE_JSON.decode(json.dumps(register).encode()) == a_node_register(node_id=None)


# --- what is wrong is named


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (plain(an_utterance(), utterance_index="0"), "utterance_index"),
        (plain(an_utterance(), utterance_index=-1), "utterance_index"),
        (plain(an_utterance(), utterance_index=2**53 + 1), "utterance_index"),
        (plain(an_utterance(), audio=5), "audio"),
        (plain(an_utterance(), audio_format="mp3"), "audio_format"),
        (plain(an_utterance(), priority=10), "priority"),
        (plain(an_utterance(), pipeline={"use_tts": "yes"}), "pipeline.use_tts"),
        (plain(an_utterance(), request_id="x" * 257), "request_id"),
        (plain(an_utterance(), src_lang=""), "src_lang"),
        (plain(a_session_init(), auto_langs=["en"] * 65), "auto_langs"),
        (plain(a_session_init(), mode="three_way"), "mode"),
        (plain(a_session_init(), features=[]), "features"),
        ({key: value for key, value in plain(an_utterance()).items() if key != "manual_cut"}, "manual_cut"),
    ],
)
def test_an_error_names_the_field(frame: dict[str, Any], named: str) -> None:
    for codec, encode in ((JSON, msgspec.json.encode), (MSGPACK, msgspec.msgpack.encode)):
        with pytest.raises(FormatError, match=rf"`{named}[`\[]"):
            codec.decode(encode(frame))


def test_what_is_no_base64_is_named() -> None:
    with pytest.raises(FormatError, match=r"base64 .* `audio`"):
        JSON.decode(json.dumps(plain(an_utterance(), audio="no base 64!")).encode())


def test_an_error_names_a_field_inside_a_field() -> None:
    frame = plain(a_node_heartbeat(), resource_usage={"cpu_percent": -1, "mem_percent": 1, "running_jobs": 0})
    with pytest.raises(FormatError, match=r"`resource_usage\.cpu_percent`"):
        NODE_JSON.decode(json.dumps(frame).encode())


@pytest.mark.parametrize("is_binary", FORMATS)
def test_a_type_that_nobody_knows_is_named(is_binary: bool) -> None:
    encode = msgspec.msgpack.encode if is_binary else msgspec.json.encode
    with pytest.raises(UnknownTypeError) as caught:
        session_server_codec(is_binary=is_binary).decode(encode({"type": "telepathy"}))
    assert caught.value.kind == "telepathy"


@pytest.mark.parametrize("frame", [{"type": 5}, {"type": None}, {"type": ["utterance"]}, {}, [], 5, None, "utterance"])
def test_an_object_without_a_type_is_no_message(frame: Any) -> None:
    for codec, encode in ((JSON, msgspec.json.encode), (MSGPACK, msgspec.msgpack.encode)):
        with pytest.raises(FormatError):
            codec.decode(encode(frame))


def test_what_a_type_of_another_reader_is_called_is_unknown() -> None:
    with pytest.raises(UnknownTypeError):
        JSON.decode(NODE_JSON.encode(a_job_result()))


# --- nothing but these


def outcome(codec: Codec[Any], frame: bytes) -> Any:
    """The message in a frame, or None; any other exception than the two is a failure of the test."""
    try:
        return codec.decode(frame)
    except (FormatError, UnknownTypeError) as error:
        text = str(error)
    assert 0 < len(text) < 1000
    assert isinstance(codec.salvage(frame), dict)
    return None


def carry_on(message: Any) -> None:
    """A message that was heard can be said again, in both formats: whoever it is for may speak the other."""
    if isinstance(message, SessionInit | Utterance | JobResult | AudioChunk):
        msgspec.json.encode(message)
        msgspec.msgpack.encode(message)


READERS = [(reader, is_binary) for reader in MAKERS for is_binary in FORMATS]


@pytest.mark.parametrize(("reader", "is_binary"), READERS)
@settings(max_examples=60, deadline=None)
@given(frame=st.binary(max_size=200))
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b'{"type":"\xff"}')
@example(b'{"type":"session_init","platform":"\xff"}')
@example(b'{"type":"\\ud800"}')
@example(b"\x81\xa4type\xa1\xff")
@example(b"\x81\xa4type\xc4\x0csession_init")
@example(b"NaN")
@example(b'{"type":NaN}')
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xc7\x0c\xff" + b"\x7f" * 12)
@example(b"[" * 100_000)
@example(b"\x91" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\x81\xa1a" * 100_000)
def test_any_bytes_at_all_are_a_message_or_called_none(reader: str, is_binary: bool, frame: bytes) -> None:
    carry_on(outcome(MAKERS[reader](is_binary=is_binary), frame))


VALID: dict[str, list[msgspec.Struct]] = {
    "session_server": [a_session_init(), an_utterance(), a_chunk()],
    "session_client": [a_result()],
    "node_server": [a_node_register(), a_node_heartbeat(), a_job_result()],
    "node_client": [],
}
spoilt = (
    json_values
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.datetimes()
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=16))
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), reader=st.sampled_from(["session_server", "session_client", "node_server"]))
def test_a_message_with_anything_in_a_field_is_a_message_or_called_none(data: st.DataObject, reader: str) -> None:
    message = data.draw(st.sampled_from(VALID[reader]))
    field = data.draw(st.sampled_from(["type", *message.__struct_fields__]))
    value = data.draw(spoilt | st.dictionaries(st.text(max_size=4), spoilt, max_size=2))
    for is_binary in FORMATS:
        codec = MAKERS[reader](is_binary=is_binary)
        wire: Any = msgspec.msgpack if is_binary else msgspec.json
        try:
            frame = wire.encode(wire.decode(codec.encode(message)) | {field: value})
        except (OverflowError, TypeError):
            continue
        carry_on(outcome(codec, frame))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), reader=st.sampled_from(["session_server", "session_client", "node_server"]))
def test_a_frame_with_some_bytes_changed_is_a_message_or_called_none(data: st.DataObject, reader: str) -> None:
    message = data.draw(st.sampled_from(VALID[reader]))
    for is_binary in FORMATS:
        codec = MAKERS[reader](is_binary=is_binary)
        frame = codec.encode(message)
        at = data.draw(st.integers(0, len(frame)))
        length = data.draw(st.integers(0, 4))
        carry_on(outcome(codec, frame[:at] + data.draw(st.binary(max_size=4)) + frame[at + length :]))


@pytest.mark.parametrize("depth", [60, 70, 900, 990, 1000, 100_000])
def test_nesting_is_carried_on_or_refused(depth: int) -> None:
    outcomes = [
        outcome(JSON, with_raw_json(a_session_init(), "features", b'{"a":' * depth + b"1" + b"}" * depth)),
        outcome(MSGPACK, with_raw_msgpack(a_session_init(), "features", b"\x81\xa1a" * depth + b"\x01")),
        outcome(NODE_JSON, with_raw_json(a_job_result(), "extra", b'{"a":' * depth + b"1" + b"}" * depth)),
        outcome(NODE_JSON, with_raw_json(a_job_result(), "reason_codes", b"[" * depth + b"]" * depth)),
    ]
    for message in outcomes:
        carry_on(message)
    assert [message is not None for message in outcomes] == [depth < 64] * 4


@pytest.mark.parametrize("field", ["features", "x_new", "partial_update_interval_ms"])
@pytest.mark.parametrize("digits", [19, 20, 30, 5000])
def test_a_huge_number_is_carried_on_or_refused(field: str, digits: int) -> None:
    number = b"9" * digits
    carry_on(outcome(JSON, with_raw_json(a_session_init(), field, number)))
    carry_on(outcome(JSON, with_raw_json(a_session_init(), field, b'{"a":[' + number + b"]}")))


@pytest.mark.parametrize("number", [-(2**63) - 1, 2**63, 10**30])
def test_a_number_that_msgpack_cannot_write_is_refused(number: int) -> None:
    with pytest.raises(FormatError, match="rerun_count"):
        NODE_JSON.decode(with_raw_json(a_job_result(), "rerun_count", str(number).encode()))
    with pytest.raises(FormatError, match="client_timestamp_ms"):
        JSON.decode(with_raw_json(a_chunk(), "client_timestamp_ms", str(number).encode()))


def test_a_large_number_among_the_features_is_refused_only_if_it_cannot_be_carried_on() -> None:
    largest = JSON.decode(with_raw_json(a_session_init(), "features", b'{"a":%d}' % (2**64 - 1)))
    assert largest == a_session_init(features={"a": 2**64 - 1})
    with pytest.raises(FormatError, match="features: an integer out of range"):
        JSON.decode(with_raw_json(a_session_init(), "features", b'{"a":[{"b":%d}]}' % 2**64))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\xc7\x01\x05a", id="an extension"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", id="a timestamp"),
        pytest.param(b"\x81\x91\x01\x01", id="an array as a key"),
        pytest.param(b"\x81\xc0\x01", id="null as a key"),
        pytest.param(b"\x81\x01\x01", id="a number as a key"),
        pytest.param(b"\x81\xc4\x01a\x01", id="bytes as a key"),
    ],
)
def test_what_json_cannot_say_is_not_carried_on(value: bytes) -> None:
    with pytest.raises(FormatError, match="features: "):
        MSGPACK.decode(with_raw_msgpack(a_session_init(), "features", b"\x81\xa1a" + value))
    with pytest.raises(FormatError, match="extra: "):
        NODE_MSGPACK.decode(with_raw_msgpack(a_job_result(), "extra", b"\x81\xa1a\x91" + value))


def test_free_fields_are_bounded() -> None:
    with pytest.raises(FormatError, match="features: too long"):
        JSON.decode(with_raw_json(a_session_init(), "features", b'{"a":[' + b"0," * 60_000 + b"0]}"))


def test_no_number_at_all_is_no_percentage() -> None:
    usage = msgspec.to_builtins(a_node_heartbeat())["resource_usage"] | {"cpu_percent": math.nan}
    frame = msgspec.msgpack.encode(plain(a_node_heartbeat(), resource_usage=usage))
    carry_on(outcome(NODE_MSGPACK, frame))


@settings(max_examples=200, deadline=None)
@given(frame=st.binary(max_size=60) | json_values.map(msgspec.json.encode))
def test_salvaging_never_fails(frame: bytes) -> None:
    for codec in (JSON, MSGPACK):
        assert isinstance(codec.salvage(frame), dict)
