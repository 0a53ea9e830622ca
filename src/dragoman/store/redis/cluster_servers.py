"""How does the store reach the right server of a Redis Cluster, and what if the cluster changes meanwhile?"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.address import Address, AddressError
from dragoman.store.redis.connection import Connection, Limits
from dragoman.store.redis.greeting import RefusedError
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.topology import (
    SLOTS,
    Endpoint,
    SlotRange,
    address_of,
    has_good_state,
    key_slot,
    parse_redirect,
    read_topology,
)
from dragoman.store.redis.wire import Detour, Sent, Word, fail
from dragoman.telemetry.logs import get_logger

_log = get_logger("store")

_REDIRECTS_MAX: Final = 5
_WAITS_MAX: Final = 5
_WAIT_S: Final = 0.01
_MEND_INTERVAL_S: Final = 0.2
_OPEN_INTERVAL_S: Final = 0.05
_TOPOLOGY_AGE_S: Final = 30.0
_ASK_TIMEOUT_MS_MAX: Final = 1000


class ClusterServers:
    """The masters of a Redis Cluster, one connection to each. See Servers."""

    def __init__(self, seeds: Sequence[Address], scripts: Sequence[Script], limits: Limits) -> None:
        if not seeds:
            raise AddressError("no address of the Redis Cluster is given: name one server of it or more")
        self.failures: Counter[str] = Counter()
        self.is_up = False
        self._credentials = seeds[0]
        self._seeds = [Endpoint(seed.host, seed.port) for seed in seeds]
        self._scripts = scripts
        self._limits = limits
        self._known: list[Endpoint] = []
        """Every server of the cluster that was seen lately, replicas too."""
        self._best_informed: Endpoint | None = None
        """Who got a slot lately: the others may not have heard of it."""
        self._owners: list[Connection | None] = [None] * SLOTS
        self._connections: dict[Endpoint, Connection] = {}
        self._detained: dict[Connection, list[tuple[Sent, bool]]] = {}
        """Commands that were sent on to a server we are just connecting to; True: with ASKING."""
        self._has_changed = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._downs = 0
        """How often something said that the cluster cannot be used."""
        self._owes_up = False
        self._unknown_reason = ""
        self._on_up: list[Callable[[], None]] = []

    async def open(self) -> None:
        """See Servers."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._limits.connect_timeout_ms / 1000
        while True:
            cause: StoreDownError | None = None
            try:
                await self._refresh()
            except StoreDownError as error:
                cause = error
            if self.is_up:
                break
            if loop.time() >= deadline_s or (isinstance(cause, RefusedError) and cause.is_lasting):
                missing = self._missing()
                await self.close()
                raise cause or StoreDownError(missing)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OPEN_INTERVAL_S):
                    await self._has_changed.wait()
        self._watcher = loop.create_task(self._watch(), name="store topology")

    async def close(self) -> None:
        """See Servers."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        self.is_up = False
        self._owners = [None] * SLOTS
        await self._retire(list(self._connections))

    def call(self, key: bytes, *words: Word) -> asyncio.Future[Any]:
        """See Servers."""
        slot = key_slot(key)
        owner = self._owners[slot]
        if owner is None:
            return self._refused(slot)
        return owner.wire.ask(words, None, slot)

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> asyncio.Future[Any]:
        """See Servers."""
        slot = key_slot(keys[0])
        owner = self._owners[slot]
        if owner is None:
            return self._refused(slot)
        return owner.wire.ask((b"EVALSHA", script.sha1, len(keys), *keys, *arguments), script, slot)

    def tell(self, key: bytes, *words: Word) -> None:
        """See Servers."""
        slot = key_slot(key)
        self._send_to(self._owners[slot], (None, words, None, slot, None, 0.0))

    def tell_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> None:
        """See Servers."""
        slot = key_slot(keys[0])
        words = (b"EVALSHA", script.sha1, len(keys), *keys, *arguments)
        self._send_to(self._owners[slot], (None, words, script, slot, None, 0.0))

    def flush(self) -> None:
        """See Servers."""
        for connection in self._connections.values():
            connection.wire.flush()

    async def everywhere(self, *words: Word) -> list[Any]:
        """See Servers."""
        if None in self._owners:
            raise StoreDownError(self._missing())
        masters = {owner for owner in self._owners if owner is not None}
        return list(await asyncio.gather(*[master.wire.ask(words) for master in masters]))

    def on_up(self, callback: Callable[[], None]) -> None:
        """See Servers."""
        self._on_up.append(callback)

    # --- the way of a command

    def _refused(self, slot: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._refuse(future, slot)
        return future

    def _refuse(self, future: asyncio.Future[Any] | None, slot: int) -> None:
        self.failures["down"] += 1
        fail(future, StoreDownError(f"no master of slot {slot} of the Redis Cluster is known"))

    def _send_to(self, owner: Connection | None, sent: Sent, *, is_asking: bool = False) -> None:
        if owner is None:
            self._refuse(sent[0], sent[3])
            return
        if owner.is_new and len(self._detained.get(owner, ())) < self._limits.in_flight_max:
            self._detained.setdefault(owner, []).append((sent, is_asking))
            return
        if is_asking:
            owner.wire.tell((b"ASKING",))
        owner.wire.send_again(sent)

    def _redirect(self, connection: Connection, sent: Sent, code: str, text: str) -> bool:
        future, words, script, slot, detour, sent_s = sent
        detour = detour or Detour()
        sent = (future, words, script, slot, detour, sent_s)
        match code:
            case "MOVED" | "ASK":
                return self._follow(connection, sent, detour, code, text)
            case "TRYAGAIN" if detour.waits < _WAITS_MAX:
                # The keys of one slot are on their way from one server to another, one after the other.
                detour.waits += 1
                detour.redirects = 0
                asyncio.get_running_loop().call_later(_WAIT_S, self._send_to_owner, sent)
                return True
            case "CLUSTERDOWN":
                self._note_down(text)
                return False
            case _:
                return False

    def _follow(self, connection: Connection, sent: Sent, detour: Detour, code: str, text: str) -> bool:
        redirect = parse_redirect(text, Endpoint(connection.address.host, connection.address.port))
        if redirect is None:
            return False
        slot, endpoint = redirect
        self.failures[code] += 1
        target = self._connection_to(endpoint)
        if code == "MOVED":
            if target.is_up:
                self._owners[slot] = target
            self._best_informed = endpoint
            self._has_changed.set()
        detour.redirects += 1
        if detour.redirects > _REDIRECTS_MAX:
            fail(sent[0], StoreDownError(f"slot {slot} was looked for at {_REDIRECTS_MAX} servers: last seen {text!r}"))
            return True
        self._send_to(target, sent, is_asking=code == "ASK")
        return True

    def _send_to_owner(self, sent: Sent) -> None:
        self._send_to(self._owners[sent[3]], sent)

    # --- who has what

    def _connection_to(self, endpoint: Endpoint) -> Connection:
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = Connection(
                address_of(endpoint, self._credentials),
                self._scripts,
                self._limits,
                self.failures,
                on_change=self._note_change,
                redirect=self._redirect,
            )
            connection.start()
        return connection

    def _note_change(self, connection: Connection) -> None:
        for sent, is_asking in self._detained.pop(connection, ()):
            self._send_to(connection, sent, is_asking=is_asking)
        if not connection.is_up and connection in self._owners:
            self._note_down(f"{connection.address.name}: {connection.last_error}")
        self._has_changed.set()

    def _note_down(self, reason: str) -> None:
        self._downs += 1
        if self.is_up:
            self.is_up = False
            self._owes_up = True
            _log.warning("store_cluster_down", reason=reason)
        self._has_changed.set()

    def _note_unknown(self, reason: str) -> None:
        if reason != self._unknown_reason:
            _log.warning("store_topology_unknown", reason=reason)
        self._unknown_reason = reason

    async def _watch(self) -> None:
        while True:
            # Not wait_for: before Python 3.12 it may swallow that this task is cancelled.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOPOLOGY_AGE_S):
                    await self._has_changed.wait()
            try:
                await self._refresh()
            except StoreDownError as error:
                # The connections that there are may serve all the same.
                self._note_unknown(str(error))
            except Exception:  # noqa: BLE001  # whatever it was, the topology has to be looked at again
                _log.exception("store_fault", server="cluster")
            if self.is_up and self._owes_up:
                self._owes_up = False
                _log.info("store_cluster_up", masters=len(self._connections))
                for callback in self._on_up:
                    callback()
            await asyncio.sleep(_MEND_INTERVAL_S)
            if not self.is_up:
                self._has_changed.set()

    async def _refresh(self) -> None:
        self._has_changed.clear()
        downs = self._downs
        timeout_ms = min(self._limits.connect_timeout_ms, _ASK_TIMEOUT_MS_MAX)
        ranges = await read_topology(self._to_be_asked(), self._credentials, timeout_ms)
        self._unknown_reason = ""
        await self._apply(ranges)
        if self.is_up and not self._is_whole():
            self._note_down(self._missing())
        if self.is_up or not self._is_whole():
            return
        # Each master must think so too: after a failover some still refuse while others serve.
        states = await asyncio.gather(
            *[has_good_state(endpoint, self._credentials, timeout_ms) for endpoint in self._connections]
        )
        # What was said meanwhile is newer than what we were told here.
        self.is_up = all(states) and self._is_whole() and downs == self._downs

    def _to_be_asked(self) -> list[Endpoint]:
        """Those first that answer, each time another of them: one may be cut off from the rest and not know it."""
        self._known = [*self._known[1:], *self._known[:1]]
        up = {endpoint for endpoint, connection in self._connections.items() if connection.is_up}
        known = dict.fromkeys([*self._known, *self._seeds])
        first, self._best_informed = self._best_informed, None
        return sorted(known, key=lambda endpoint: (endpoint != first, endpoint not in up))

    async def _apply(self, ranges: Sequence[SlotRange]) -> None:
        owners: list[Connection | None] = [None] * SLOTS
        for part in ranges:
            owners[part.first : part.last + 1] = [self._connection_to(part.master)] * (part.last + 1 - part.first)
        if any(connection.is_new for connection in self._connections.values()):
            owners = [_until_connected(old, new) for old, new in zip(self._owners, owners, strict=True)]
        self._owners = owners
        masters = dict.fromkeys(part.master for part in ranges)
        seen = dict.fromkeys([*masters, *(replica for part in ranges for replica in part.replicas)])
        self._known = list(dict.fromkeys([*[known for known in self._known if known in seen], *seen]))
        in_use = set(self._owners)
        await self._retire(
            [
                endpoint
                for endpoint, connection in self._connections.items()
                if endpoint not in masters and connection not in in_use
            ]
        )

    async def _retire(self, endpoints: Sequence[Endpoint]) -> None:
        retired = [self._connections.pop(endpoint) for endpoint in endpoints]
        await asyncio.gather(*[connection.close() for connection in retired])
        for connection in retired:
            for sent, is_asking in self._detained.pop(connection, ()):
                self._send_to(connection, sent, is_asking=is_asking)

    def _is_whole(self) -> bool:
        return all(owner is not None and owner.is_up for owner in set(self._owners))

    def _missing(self) -> str:
        """What keeps us from service, for an error."""
        unknown = self._owners.count(None)
        if unknown:
            return f"the Redis Cluster has no master for {unknown} of {SLOTS} slots: see CLUSTER SLOTS and CLUSTER INFO"
        reasons = sorted(
            f"{connection.address.name}: {connection.last_error or 'it says that the cluster is down'}"
            for connection in self._connections.values()
            if connection.last_error or not connection.is_up
        )
        return f"not every master of the Redis Cluster can be used: {'; '.join(reasons) or 'see CLUSTER INFO'}"


def _until_connected(old: Connection | None, new: Connection | None) -> Connection | None:
    """The owner of a slot to ask now: while we connect to the new one, the old one sends on whoever asks it."""
    if new is not None and new.is_new and old is not None and old.is_up:
        return old
    return new
