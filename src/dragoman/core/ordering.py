"""In which order do the results of a session go out, and how long does one wait for those before it?

Results go out by ascending index. A result that is ready waits for earlier ones at most the gap time-out, then goes
ahead; an earlier utterance that still runs is delivered when it ends, an index that never came is reported missing.
Errors do not wait: whoever can try again should know at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

AHEAD_MAX: Final = 1000
"""How far an index may be ahead of the first that has not ended; it bounds what one message can make us keep."""


@dataclass(frozen=True, slots=True)
class Missing:
    """An index that the client skipped."""

    index: int


@dataclass(slots=True)
class _Held(Generic[T]):
    results: list[T]
    """Usually one; none after an error, more when a client used an index for several requests."""
    until_ms: int


class OrderedResults(Generic[T]):
    """The order of one session's results. It holds results back and lets them go; times in milliseconds."""

    def __init__(self, gap_timeout_ms: int, next_index: int = 0) -> None:
        self.gap_timeout_ms = gap_timeout_ms
        self.next_index = next_index
        """The lowest index that has neither ended nor been passed over."""
        self._open: set[int] = set()
        self._held: dict[int, _Held[T]] = {}

    def is_too_far(self, index: int) -> bool:
        """Whether an index is so far ahead that it must be a mistake."""
        return index >= self.next_index + AHEAD_MAX

    def is_open(self, index: int) -> bool:
        """Whether an utterance with this index is under way."""
        return index in self._open

    @property
    def open_count(self) -> int:
        """How many utterances have begun and not ended."""
        return len(self._open)

    def begin(self, index: int) -> None:
        """An utterance was accepted."""
        self._open.add(index)

    def end(self, index: int, result: T | None, now_ms: int) -> list[T | Missing]:
        """An utterance ended, with a result or (None) with an error told already. Answers what goes out now.

        The same result again, while it is held back, is still one.
        """
        self._open.discard(index)
        if index <= self.next_index and not self._held:
            # The usual way: it is the next, and nothing waits for it.
            self.next_index = max(self.next_index, index + 1)
            return [] if result is None else [result]
        if index < self.next_index:
            return [] if result is None else [result]
        held = self._held.setdefault(index, _Held([], now_ms + self.gap_timeout_ms))
        if result is not None and result not in held.results:
            held.results.append(result)
        return self._release(now_ms)

    def take_held(self) -> list[tuple[int, T]]:
        """Take out what is held back: it goes out elsewhere."""
        held = [(index, result) for index, waiting in sorted(self._held.items()) for result in waiting.results]
        self._held.clear()
        return held

    def due_ms(self) -> int | None:
        """When `release` should be called, if nothing ends before."""
        if not self._held:
            return None
        return min((held.until_ms for held in self._held.values()), default=None)

    def release(self, now_ms: int) -> list[T | Missing]:
        """Time went by. Answers what goes out now."""
        return self._release(now_ms)

    def _release(self, now_ms: int) -> list[T | Missing]:
        out: list[T | Missing] = []
        if len(self._held) == 1 and self.next_index in self._held:
            self._advance(out)
            return out
        overdue = max((index for index, held in self._held.items() if held.until_ms <= now_ms), default=-1)
        while self.next_index in self._held or self.next_index <= overdue:
            self._advance(out)
        return out

    def _advance(self, out: list[T | Missing]) -> None:
        held = self._held.pop(self.next_index, None)
        if held is not None:
            out.extend(held.results)
        elif self.next_index not in self._open:
            out.append(Missing(self.next_index))
        self.next_index += 1
