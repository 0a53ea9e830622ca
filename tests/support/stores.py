"""Which stores are held to the contract, and how does time go by for them?"""

from __future__ import annotations

import asyncio
import atexit
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from dragoman.clock import Clock
from dragoman.config.phase2 import Phase2Settings
from dragoman.embedded import single_valkey, valkey_cluster
from dragoman.store.interface import Store
from dragoman.store.memory.store import MemoryStore
from dragoman.store.redis.store import RedisStore
from tests.support.clock import ManualClock
from tests.support.time_machine import age, clear

RETAINED_BYTES_MAX = 64 * 1024 * 1024
JOB_TTL_MS = 100_000_000_000
RESUME_WINDOW_MS = 60_000
_INBOX_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStore:
    """An empty store, and its time."""

    store: Store
    now_ms: Callable[[], int]
    """The time of the store's clock."""
    advance: Callable[[int], Awaitable[None]]
    """Let that many milliseconds of the store's clock go by."""
    inbox_max: int
    """How many letters may lie in an inbox."""
    rest_ms: int = 1
    """How exactly its time can be moved: on a real server some goes by of itself."""

    def almost(self, span_ms: int) -> int:
        """So long that a span is surely not over; after `rest_ms` more it is."""
        return span_ms - self.rest_ms


MakeStore: TypeAlias = Callable[[], AbstractAsyncContextManager[OpenStore]]


@asynccontextmanager
async def memory_store() -> AsyncIterator[OpenStore]:
    """The store of the embedded default."""
    clock = ManualClock()

    async def advance(by_ms: int) -> None:
        clock.advance(by_ms)

    store = MemoryStore(clock, retained_bytes_max=RETAINED_BYTES_MAX)
    yield OpenStore(store=store, now_ms=clock.now_ms, advance=advance, inbox_max=10_000)


@asynccontextmanager
async def valkey_store() -> AsyncIterator[OpenStore]:
    """The store on one Valkey server, which this process shares."""
    async with redis_store({"url": single_url()}) as opened:
        yield opened


@asynccontextmanager
async def valkey_cluster_store() -> AsyncIterator[OpenStore]:
    """The store on a cluster of three masters, which this process shares."""
    async with redis_store({"mode": "cluster", "cluster_urls": cluster_urls()}) as opened:
        yield opened


STORES: dict[str, MakeStore] = {
    "memory": memory_store,
    "valkey": valkey_store,
    "valkey-cluster": valkey_cluster_store,
}
SLOW_STORES = frozenset({"valkey-cluster"})


class Opened:
    """A store for a test that is no coroutine: opened and closed in the loop that is given."""

    def __init__(self, runner: asyncio.Runner, make: MakeStore) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self._make = make

    def __enter__(self) -> OpenStore:
        return self._runner.run(self._stack.enter_async_context(self._make()))

    def __exit__(self, *details: object) -> None:
        self._runner.run(self._stack.aclose())


@asynccontextmanager
async def redis_store(servers: dict[str, Any]) -> AsyncIterator[OpenStore]:
    """A store of its own on servers that are shared: nothing of another is in it, and nothing of it may stay."""
    prefix = f"test-{secrets.token_hex(8)}"
    clock = ManualClock()
    store = make_redis_store(prefix, servers, clock)

    async def advance(by_ms: int) -> None:
        await age(store, prefix, by_ms)
        server_ms = store._time.now_ms()
        clock.advance(by_ms)
        store._time.set(server_ms)
        store._time.valid_until_s -= by_ms / 1000

    await store.open()
    try:
        # It was there long before: nobody has to wait until everybody has written again what he knows.
        born = store._keys.born
        await store._servers.call(born, "SET", born, 1)
        yield OpenStore(store=store, now_ms=clock.now_ms, advance=advance, inbox_max=_INBOX_MAX, rest_ms=4000)
        assert await clear(store, prefix) == [], "every key has a time to live"
    finally:
        await store.close()


def make_redis_store(
    prefix: str,
    servers: dict[str, Any],
    clock: Clock,
    *,
    job_ttl_ms: int = JOB_TTL_MS,
    retained_bytes_max: int = RETAINED_BYTES_MAX,
) -> RedisStore:
    """A store, not open yet."""
    settings = Phase2Settings.model_validate(
        {"enabled": True, "stream_maxlen": _INBOX_MAX, "redis": {"key_prefix": prefix, **servers}}
    )
    return RedisStore(
        settings,
        clock,
        job_ttl_ms=job_ttl_ms,
        retained_bytes_max=retained_bytes_max,
        resume_window_ms=RESUME_WINDOW_MS,
    )


_servers = ExitStack()
"""Servers that run until this process ends."""


@cache
def single_url() -> str:
    """Where one server is."""
    atexit.register(_servers.close)
    return _servers.enter_context(single_valkey()).url


@cache
def cluster_urls() -> tuple[str, ...]:
    """Where a cluster is."""
    atexit.register(_servers.close)
    return _servers.enter_context(valkey_cluster()).urls
