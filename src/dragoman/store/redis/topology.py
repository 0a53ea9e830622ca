"""Which server of a Redis Cluster has which keys?"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.address import Address
from dragoman.store.redis.connection import CommandError, dial
from dragoman.store.redis.greeting import RefusedError, ask_once
from dragoman.store.redis.wire import Wire, Words

SLOTS: Final = 16384


class Endpoint(NamedTuple):
    """Where a server of the cluster is reached."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class SlotRange:
    """Slots that have one master, from `first` to `last`."""

    first: int
    last: int
    master: Endpoint
    replicas: tuple[Endpoint, ...]


def key_slot(key: bytes) -> int:
    """The slot of a key: of what is in its first braces, if there is anything (Redis Cluster specification)."""
    opened = key.find(b"{")
    if opened >= 0:
        closed = key.find(b"}", opened + 1)
        if closed > opened + 1:
            key = key[opened + 1 : closed]
    return crc_hqx(key, 0) & 0x3FFF


async def read_topology(endpoints: Iterable[Endpoint], credentials: Address, timeout_ms: int) -> tuple[SlotRange, ...]:
    """Ask one server after the other until one knows a master for every slot; else take what the best of them knows.

    Raises StoreDownError if none answers.
    """
    best: tuple[SlotRange, ...] = ()
    errors: list[StoreDownError] = []
    for endpoint in endpoints:
        try:
            reply = await ask_at(endpoint, credentials, (b"CLUSTER", b"SLOTS"), timeout_ms)
        except StoreDownError as error:
            errors.append(error)
            continue
        if isinstance(reply, CommandError):
            errors.append(_no_cluster(endpoint, str(reply)))
            continue
        known = parse_slots(reply, endpoint)
        if slots_covered(known) > slots_covered(best):
            best = known
        if slots_covered(best) == SLOTS:
            break
    if best:
        return best
    raise _worst(errors)


async def has_good_state(endpoint: Endpoint, credentials: Address, timeout_ms: int) -> bool:
    """Whether a server says that the cluster can be used."""
    try:
        reply = await ask_at(endpoint, credentials, (b"CLUSTER", b"INFO"), timeout_ms)
    except StoreDownError:
        return False
    # A user who may not ask finds out by his first call.
    return not isinstance(reply, bytes) or b"cluster_state:ok" in reply


async def ask_at(endpoint: Endpoint, credentials: Address, words: Words, timeout_ms: int) -> Any:
    """Ask one thing on a connection of its own: one that is shared may be waiting in a blocking read.

    Raises StoreDownError.
    """
    address = address_of(endpoint, credentials)
    wire = Wire(
        address.name,
        in_flight_max=2,
        command_timeout_s=timeout_ms / 1000,
        failures=Counter(),
        on_lost=lambda _wire, _reason: None,
    )
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await dial(wire, address)
            return await ask_once(wire, address, words)
    except StoreDownError:
        raise
    except TimeoutError as error:
        raise StoreDownError(f"{address.name}: no answer in {timeout_ms} ms") from error
    except OSError as error:
        raise StoreDownError(f"{address.name}: cannot be reached: {error}") from error
    finally:
        wire.end("answered")


def address_of(endpoint: Endpoint, credentials: Address) -> Address:
    """The address of a server, with the way in that all of the cluster share."""
    return replace(credentials, host=endpoint.host, port=endpoint.port)


def parse_slots(reply: Any, asked: Endpoint) -> tuple[SlotRange, ...]:
    """Read the answer to CLUSTER SLOTS of a server."""
    return tuple(
        SlotRange(
            first=first,
            last=last,
            master=_endpoint(master, asked),
            replicas=tuple(_endpoint(replica, asked) for replica in replicas),
        )
        for first, last, master, *replicas in reply
    )


def parse_redirect(text: str, asked: Endpoint) -> tuple[int, Endpoint] | None:
    """Read `MOVED 3999 127.0.0.1:6381` or the same of ASK: the slot, and who has it. None if it is not like that."""
    _, _, rest = text.partition(" ")
    slot, _, place = rest.partition(" ")
    host, _, port = place.rpartition(":")
    if not (slot.isdigit() and int(slot) < SLOTS and port.isdigit()):
        return None
    return int(slot), Endpoint(host.strip("[]") or asked.host, int(port))


def slots_covered(ranges: Sequence[SlotRange]) -> int:
    """How many slots have a master."""
    return sum(part.last - part.first + 1 for part in ranges)


def _endpoint(node: Sequence[Any], asked: Endpoint) -> Endpoint:
    host, port = node[0], node[1]
    if host == b"?":
        # The cluster announces host names, and this server has none: its IP address is among the further fields.
        fields = node[3] if len(node) > 3 else []
        host = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"ip")
    # No host at all: the one that answered us.
    return Endpoint(host.decode() if host else asked.host, port)


def _no_cluster(endpoint: Endpoint, text: str) -> RefusedError:
    advice = (
        "the user needs the permission +cluster|slots"
        if text.startswith("NOPERM")
        else 'it is no Redis Cluster: set mode = "single", or name servers of a cluster'
    )
    return RefusedError(f"{endpoint.host}:{endpoint.port} said {text!r} to CLUSTER SLOTS: {advice}", is_lasting=True)


def _worst(errors: Sequence[StoreDownError]) -> StoreDownError:
    """The one that tells most: a refusal before silence."""
    for error in errors:
        if isinstance(error, RefusedError) and error.is_lasting:
            return error
    return errors[-1] if errors else StoreDownError("no server of the cluster knows a master of any slot")
