"""What does the node still have to say to the scheduler? Results are kept over a lost connection, the rest is not."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from dragoman.protocol.node_messages import JobAck, JobResult, JobStarted, NodeAsrPartial, NodeDrain

Outgoing: TypeAlias = JobAck | JobStarted | NodeAsrPartial | JobResult | NodeDrain

_KEEP_S: Final = 60.0
"""After that no scheduler waits for a result any more: its job has been given to another node or has failed."""
_LENGTH_MAX: Final = 10_000


class Outbox:
    """Messages in the order in which they were said, for whatever connection there is."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, length_max: int = _LENGTH_MAX) -> None:
        self._clock = clock
        self._length_max = length_max
        self._items: deque[tuple[float, Outgoing]] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._is_open = False

    def __len__(self) -> int:
        return len(self._items)

    def tell(self, message: Outgoing) -> None:
        """Say it now or never: without a connection, or behind too many others, it is dropped."""
        if self._is_open and len(self._items) < self._length_max:
            self._append(message)

    def keep(self, result: JobResult) -> None:
        """Say it on this connection or a later one; of too many the oldest are dropped."""
        if len(self._items) >= self._length_max:
            self._items.popleft()
        self._append(result)

    def open(self) -> None:
        """There is a connection."""
        self._is_open = True

    def close(self) -> None:
        """There is no connection: what was meant for it alone is forgotten."""
        self._is_open = False
        self._items = deque(item for item in self._items if isinstance(item[1], JobResult))
        self._mark()

    async def next(self) -> Outgoing:
        """The next message; it stays until `sent`, so that a failing connection does not lose it."""
        while True:
            await self._filled.wait()
            since, message = self._items[0]
            if self._clock() - since <= _KEEP_S:
                return message
            self.sent(message)

    def sent(self, message: Outgoing) -> None:
        """The message is out."""
        if self._items and self._items[0][1] is message:
            self._items.popleft()
            self._mark()

    async def empty(self) -> None:
        """Wait until all is sent."""
        await self._emptied.wait()

    def _append(self, message: Outgoing) -> None:
        self._items.append((self._clock(), message))
        self._mark()

    def _mark(self) -> None:
        if self._items:
            self._filled.set()
            self._emptied.clear()
            return
        self._filled.clear()
        self._emptied.set()
