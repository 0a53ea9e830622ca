"""What time is it, and wake me then.

All times inside the program are whole milliseconds of one clock that never goes back: it starts at the wall clock and
then follows the monotonic one, so that setting the machine's clock changes no lease and no deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """The seam: SystemClock in a server; in tests one that is moved by hand."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never going back."""
        ...

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at that time or soon after it."""
        ...


class SystemClock:
    """The clock of the event loop, set to the wall clock when it is made. A loop in fake time makes it a fake clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._time = self._loop.time
        self._now_ms = 0
        """The time of this turn of the loop; 0 when it has not been asked for yet."""
        self._offset_s = time.time() - self._time()

    def now_ms(self) -> int:
        """Milliseconds since the epoch, never going back. It stands still within a turn of the loop."""
        if not self._now_ms:
            self._now_ms = int((self._time() + self._offset_s) * 1000)
            self._loop.call_soon(self._turn_over)
        return self._now_ms

    def _turn_over(self) -> None:
        self._now_ms = 0

    def call_at(self, when_ms: int, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at that time or soon after it."""
        # One millisecond late rather than early: now_ms() rounds down, and a caller that compares must find it due.
        return self._loop.call_at((when_ms + 1) / 1000 - self._offset_s, callback)
