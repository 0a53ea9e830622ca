"""How does the store talk to its servers, one or a Redis Cluster?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dragoman.config.phase2 import RedisSettings
from dragoman.store.redis.address import Address, parse_address
from dragoman.store.redis.cluster_servers import ClusterServers
from dragoman.store.redis.connection import Connection, Limits
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.wire import Word

__all__ = ["ClusterServers", "Servers", "SingleServer", "make_servers"]


class Servers(Protocol):
    """What the store needs of its servers. Replies are bytes, int, list or None.

    A call raises StoreDownError when it could not be done now, CommandError when it never can. After a StoreDownError
    the command may have been done or not.
    """

    failures: Counter[str]
    """Errors by kind."""

    @property
    def is_up(self) -> bool:
        """Whether every server we need is connected; of a Redis Cluster, a master for every slot."""
        ...

    async def open(self) -> None:
        """Connect, and stay connected until `close`. Raises StoreDownError if nothing answers in connect_timeout_ms."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...

    def call(self, key: bytes, *words: Word) -> asyncio.Future[Any]:
        """Send a command to the server of a key. It leaves at the end of this turn of the loop."""
        ...

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> asyncio.Future[Any]:
        """Run a script at the server of its first key."""
        ...

    def tell(self, key: bytes, *words: Word) -> None:
        """Send a command whose reply nobody waits for. An error is counted and logged."""
        ...

    def tell_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> None:
        """Run a script whose reply nobody waits for."""
        ...

    def flush(self) -> None:
        """Let what was sent in this turn leave now, and not at its end."""
        ...

    async def everywhere(self, *words: Word) -> list[Any]:
        """Send a command to every master."""
        ...

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call back each time service is whole again after a loss."""
        ...


def make_servers(
    settings: RedisSettings, scripts: Sequence[Script], *, command_timeout_ms: int | None = None
) -> Servers:
    """The servers that the settings name, for use in the loop that runs. Raises AddressError.

    A command_timeout_ms of its own is for blocking reads: longer than they block.
    """
    limits = Limits(
        connect_timeout_ms=settings.connect_timeout_ms,
        command_timeout_ms=settings.command_timeout_ms if command_timeout_ms is None else command_timeout_ms,
    )
    if settings.mode == "single":
        return SingleServer(parse_address(settings.url.get_secret_value()), scripts, limits)
    seeds = [parse_address(url.get_secret_value()) for url in settings.cluster_urls]
    return ClusterServers(seeds, scripts, limits)


class SingleServer:
    """One server, or whichever is the primary behind one address."""

    def __init__(self, address: Address, scripts: Sequence[Script], limits: Limits) -> None:
        self.failures: Counter[str] = Counter()
        self._on_up: list[Callable[[], None]] = []
        self._was_up = False
        self._connection = Connection(address, scripts, limits, self.failures, on_change=self._note_change)

    @property
    def is_up(self) -> bool:
        """See Servers."""
        return self._connection.is_up

    async def open(self) -> None:
        """See Servers."""
        await self._connection.open()
        self._was_up = True

    async def close(self) -> None:
        """See Servers."""
        await self._connection.close()

    def call(self, key: bytes, *words: Word) -> asyncio.Future[Any]:  # noqa: ARG002  # every key is at the one server
        """See Servers."""
        return self._connection.wire.ask(words)

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> asyncio.Future[Any]:
        """See Servers."""
        return self._connection.wire.ask((b"EVALSHA", script.sha1, len(keys), *keys, *arguments), script)

    def tell(self, key: bytes, *words: Word) -> None:  # noqa: ARG002  # every key is at the one server
        """See Servers."""
        self._connection.wire.tell(words)

    def tell_script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Word]) -> None:
        """See Servers."""
        self._connection.wire.tell((b"EVALSHA", script.sha1, len(keys), *keys, *arguments), script)

    def flush(self) -> None:
        """See Servers."""
        self._connection.wire.flush()

    async def everywhere(self, *words: Word) -> list[Any]:
        """See Servers."""
        return [await self._connection.wire.ask(words)]

    def on_up(self, callback: Callable[[], None]) -> None:
        """See Servers."""
        self._on_up.append(callback)

    def _note_change(self, connection: Connection) -> None:
        if connection.is_up and self._was_up:
            for callback in self._on_up:
                callback()
