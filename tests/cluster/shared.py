"""What do the instances of a test share? A Valkey or a cluster of them, and a prefix of their own on it."""

from __future__ import annotations

import atexit
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final, TypeAlias

from dragoman.embedded import EmbeddedCluster, EmbeddedError, EmbeddedValkey, single_valkey, valkey_cluster
from tests.support.time_machine import PERMANENT

Servers: TypeAlias = EmbeddedValkey | EmbeddedCluster

_REDIRECTS_MAX: Final = 5


class Shared:
    """The servers, as a test sees them: one keyspace, whichever server a key is on."""

    def __init__(self, servers: Servers, *, url: str | None = None) -> None:
        self.servers = servers
        self.prefix = f"t{secrets.token_hex(6)}"
        self._url = url

    @property
    def settings(self) -> dict[str, Any]:
        """What an instance must be told to use it: the section of the store."""
        if isinstance(self.servers, EmbeddedValkey):
            return {"url": self._url or self.servers.url, "key_prefix": self.prefix}
        return {"mode": "cluster", "cluster_urls": list(self.servers.urls), "key_prefix": self.prefix}

    @property
    def server(self) -> EmbeddedValkey:
        """The one server."""
        assert isinstance(self.servers, EmbeddedValkey)
        return self.servers

    def key(self, name: str) -> str:
        """A key of these instances."""
        return f"{self.prefix}:{name}"

    def inbox(self, instance_id: str) -> str:
        """The inbox of an instance."""
        return self.key(f"streams:{{instance:{instance_id}}}:inbox")

    def dead_letters(self, instance_id: str) -> str:
        """What could not be delivered to an instance."""
        return self.key(f"streams:{{instance:{instance_id}}}:dlq")

    def slots(self, node_id: str) -> str:
        """The holds of a node."""
        return self.key(f"v1:slots:{{slots}}:node:{node_id}")

    def call(self, *words: str | bytes | int | float) -> Any:
        """Send a command whose first argument is a key, to the server that has the key."""
        server = self._masters()[0]
        for _ in range(_REDIRECTS_MAX):
            try:
                return server.call(*words)
            except EmbeddedError as error:
                _, _, moved = str(error).partition("MOVED ")
                if not moved:
                    raise
                port = int(moved.split("'")[0].rpartition(":")[2])
                server = next(other for other in self._all() if other.port == port)
        raise AssertionError(f"no server answers {words[0]!r}")

    def everywhere(self, *words: str | bytes | int | float) -> list[Any]:
        """Send a command to every master."""
        return [server.call(*words) for server in self._masters()]

    def keys(self, pattern: str = "*") -> list[bytes]:
        """The keys of these instances that match."""
        return sorted(key for keys in self.everywhere("KEYS", f"{self.prefix}:{pattern}") for key in keys)

    def immortal(self) -> list[bytes]:
        """Keys that would stay for ever, and may not."""
        allowed = {self.prefix.encode() + b":" + name for name in PERMANENT}
        return [key for key in self.keys() if key not in allowed and self.call("PTTL", key) == -1]

    def assert_no_leak(self, within_s: float = 3) -> None:
        """Every key has a time to live. A key and its time may be written by two commands: the second gets a moment."""
        deadline_s = time.monotonic() + within_s
        while immortal := self.immortal():
            assert time.monotonic() < deadline_s, f"keys without a time to live: {immortal}"
            time.sleep(0.05)

    def clear(self) -> None:
        """Delete everything of these instances."""
        for key in self.keys():
            self.call("DEL", key)

    def _all(self) -> Sequence[EmbeddedValkey]:
        return [self.servers] if isinstance(self.servers, EmbeddedValkey) else self.servers.servers

    def _masters(self) -> list[EmbeddedValkey]:
        if isinstance(self.servers, EmbeddedValkey):
            return [self.servers]
        masters = []
        for server in self.servers.servers:
            try:
                if server.call("ROLE")[0] == b"master":
                    masters.append(server)
            except (OSError, EmbeddedError):
                continue  # it is down, and another has its slots
        return masters


@contextmanager
def shared_by(kind: str) -> Iterator[Shared]:
    """A keyspace of one's own on servers that this process shares: nobody may harm these."""
    shared = Shared(_single() if kind == "single" else _cluster())
    try:
        yield shared
        shared.assert_no_leak()
    finally:
        shared.clear()


_running = ExitStack()
"""Servers that run until this process ends."""


@cache
def _single() -> EmbeddedValkey:
    atexit.register(_running.close)
    return _running.enter_context(single_valkey())


@cache
def _cluster() -> EmbeddedCluster:
    atexit.register(_running.close)
    return _running.enter_context(valkey_cluster())
