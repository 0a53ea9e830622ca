"""How does a test wait for an hour in a millisecond? By an event loop whose time jumps when there is nothing to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: where another would sleep, it moves the loop's time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not events and timeout is None:
            raise AssertionError("everything waits, and nothing will ever happen")
        if not events and timeout is not None and timeout > 0:
            self.now_s += timeout
        return events


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in its own time, which starts at 0 and never costs any."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._jumping.now_s


def run_in_fake_time(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in fake time."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(story)
