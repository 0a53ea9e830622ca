"""Which stores are held to the contract, and how does time go by for them?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from dragoman.store.interface import Store
from dragoman.store.memory import MemoryStore
from tests.support.clock import ManualClock

RETAINED_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OpenStore:
    """An empty store, and its time."""

    store: Store
    now_ms: Callable[[], int]
    """The time of the store's clock."""
    advance: Callable[[int], Awaitable[None]]
    """Let that many milliseconds of the store's clock go by."""


MakeStore: TypeAlias = Callable[[], AbstractAsyncContextManager[OpenStore]]


@asynccontextmanager
async def memory_store() -> AsyncIterator[OpenStore]:
    """The store of the embedded default."""
    clock = ManualClock()

    async def advance(by_ms: int) -> None:
        clock.advance(by_ms)

    yield OpenStore(MemoryStore(clock, retained_bytes_max=RETAINED_BYTES_MAX), clock.now_ms, advance)


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


STORES: dict[str, MakeStore] = {"memory": memory_store}
