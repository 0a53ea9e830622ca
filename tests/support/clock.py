"""What time is it, when nothing but the test says so?"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast


class ManualClock:
    """A clock that stands still until it is moved. Moving it calls back what falls due, in order, each at its time."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self._now_ms = now_ms
        self._numbers = itertools.count()
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []

    def now_ms(self) -> int:
        """See Clock."""
        return self._now_ms

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """See Clock."""
        handle = asyncio.TimerHandle(when_ms, callback, (), cast("Any", _NO_LOOP))
        heapq.heappush(self._timers, (when_ms, next(self._numbers), handle))
        return handle

    def advance(self, by_ms: int) -> None:
        """Move on."""
        until_ms = self._now_ms + by_ms
        while self._timers and self._timers[0][0] <= until_ms:
            when_ms, _, handle = heapq.heappop(self._timers)
            self._now_ms = max(self._now_ms, when_ms)
            if not handle.cancelled():
                handle._run()
        self._now_ms = until_ms


class _NoLoop:
    """As much of an event loop as a TimerHandle asks for."""

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]


_NO_LOOP = _NoLoop()
