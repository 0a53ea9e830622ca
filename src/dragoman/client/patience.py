"""How long does one wait: before the next attempt to connect, before a refused request goes again, under pressure?"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from dragoman.client.errors import DragomanError, NoAvailableNodeError, RefusedError, SchedulerError
from dragoman.protocol.session_messages import Backpressure

_RNG: Final = random.Random()  # noqa: S311  # no secret hangs on it
_PAUSE_S: Final = 1.0
"""How long `backpressure` counts that does not say."""
_PAUSE_MAX_S: Final = 30.0
_SLOW_GAP_S: Final = 0.05
"""Time between two new utterances while the scheduler wants a slower pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """What is asked for again without the program's doing, within the time-out of each request.

    A request that was refused for want of room is sent again when the scheduler says, as often as time allows.
    `failed_jobs_max` is how many failed jobs of one request are tried anew, if the scheduler calls that worth while.
    `waits_for_nodes` is whether to wait also while no node is connected that could ever do it.
    """

    failed_jobs_max: int = 2
    waits_for_nodes: bool = True

    def allows(self, error: DragomanError, failures: int) -> bool:
        """Whether a request that ended in this error, after so many others, may go again."""
        if not error.retryable:
            return False
        if isinstance(error, NoAvailableNodeError) and not self.waits_for_nodes:
            return error.is_worth_waiting
        return isinstance(error, RefusedError) or failures <= self.failed_jobs_max


class Backoff:
    """Waits that double up to a bound, each by chance between half of it and all, so that many do not come as one."""

    def __init__(self, *, first_s: float, last_s: float) -> None:
        self._first_s = self._bound_s = first_s
        self._last_s = last_s

    def reset(self) -> None:
        """All is well again."""
        self._bound_s = self._first_s

    def next_s(self) -> float:
        """The next wait, in seconds."""
        wait_s = self._bound_s * _RNG.uniform(0.5, 1)
        self._bound_s = min(self._last_s, self._bound_s * 2)
        return wait_s


def retry_wait_s(error: DragomanError, backoff: Backoff) -> float:
    """Seconds until a refused request goes again: what the scheduler said and a little more, by chance."""
    wait_s = backoff.next_s()
    if isinstance(error, NoAvailableNodeError) and not error.is_worth_waiting:
        return wait_s  # the scheduler cannot know when a node will connect, and after a restart of it that is soon
    after_s = error.retry_after_s if isinstance(error, SchedulerError) else None
    return wait_s if after_s is None else after_s * _RNG.uniform(1, 1.1)


class Pace:
    """When the next new utterance may go, as the scheduler asks by `backpressure`. Times of the event loop."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._slow_until = 0.0

    def obey(self, pressure: Backpressure, now: float) -> None:
        """The scheduler wants less."""
        asked_s = _PAUSE_S if pressure.resume_after_ms is None else pressure.resume_after_ms / 1000
        until = now + min(max(asked_s, 0.0), _PAUSE_MAX_S)
        if pressure.action == "SLOW_DOWN":
            self._slow_until = max(self._slow_until, until)
        else:
            self._next_at = max(self._next_at, until)

    def wait_s(self, now: float) -> float:
        """Seconds until the next one may go; 0 for now."""
        return max(0.0, self._next_at - now)

    def sent(self, now: float) -> None:
        """A new utterance went."""
        if now < self._slow_until:
            self._next_at = max(self._next_at, now + _SLOW_GAP_S)
