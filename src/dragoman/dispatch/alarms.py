"""When must something be looked at again? Many times to come, one timer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from dragoman.clock import Clock

_COARSE_MS: Final = 5
"""Alarms this close together go off as one."""


class Alarms:
    """Wakes one task when the earliest of many times has come. Cheap to set, and to leave unanswered."""

    def __init__(self, clock: Clock, on_due: Callable[[], None]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._heap: list[tuple[int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0

    def set(self, due_ms: int, key: str) -> None:
        """Look at `key` then."""
        heapq.heappush(self._heap, (due_ms, key))
        if self._timer is None or due_ms + _COARSE_MS < self._timer_ms:
            self._arm()

    def take_due(self) -> list[tuple[int, str]]:
        """The alarms whose time has come, each once."""
        now_ms = self._clock.now_ms()
        due: list[tuple[int, str]] = []
        while self._heap and self._heap[0][0] <= now_ms:
            due.append(heapq.heappop(self._heap))
        self._arm()
        return due

    def stop(self) -> None:
        """No alarm any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
        self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer_ms = self._heap[0][0]
            self._timer = self._clock.call_at(self._timer_ms, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        self._on_due()
