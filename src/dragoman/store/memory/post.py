"""How do instances in one process write to each other? Through inboxes like those of a shared server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId
from dragoman.store.post import DeadLetter, Letter, Posting

_LENGTH_MAX: Final = 10_000
_NEW_WORK_MAX: Final = 8_000
_DEAD_MAX: Final = 1000


@dataclass(slots=True)
class _Posted:
    letter: Letter
    posted_ms: int
    taken_ms: int = 0


@dataclass(slots=True)
class _Inbox:
    waiting: deque[_Posted] = field(default_factory=deque)
    taken: dict[str, _Posted] = field(default_factory=dict)
    dead: deque[DeadLetter] = field(default_factory=lambda: deque(maxlen=_DEAD_MAX))
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False


class MemoryPost:
    """See Post."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._inboxes: dict[InstanceId, _Inbox] = {}
        self._serial = 0

    async def post(self, to: InstanceId, payload: bytes, *, is_new_work: bool) -> Posting:
        """See Store."""
        inbox = self._inbox(to)
        if inbox.is_closed:
            return Posting.GONE
        if len(inbox.waiting) + len(inbox.taken) >= (_NEW_WORK_MAX if is_new_work else _LENGTH_MAX):
            return Posting.FULL
        self._serial += 1
        letter = Letter(id=str(self._serial), payload=payload, age_ms=0)
        inbox.waiting.append(_Posted(letter, self._clock.now_ms()))
        inbox.arrival.set()
        return Posting.POSTED

    async def receive(self, me: InstanceId, count: int, block_ms: int) -> tuple[Letter, ...]:
        """See Store."""
        inbox = self._inbox(me)
        if not inbox.waiting:
            inbox.arrival.clear()
            try:
                async with asyncio.timeout(block_ms / 1000):
                    await inbox.arrival.wait()
            except TimeoutError:
                return ()
        return self._take(inbox, count)

    def acknowledge(self, inbox: InstanceId, ids: Sequence[str]) -> None:
        """See Store."""
        taken = self._inbox(inbox).taken
        for letter_id in ids:
            taken.pop(letter_id, None)

    async def unacknowledged(self, inbox: InstanceId, me: InstanceId, idle_ms: int, count: int) -> tuple[Letter, ...]:
        """See Store. Of another's inbox also what nobody has taken out yet."""
        now_ms = self._clock.now_ms()
        box = self._inbox(inbox)
        old = [posted for posted in box.taken.values() if posted.taken_ms + idle_ms <= now_ms][:count]
        for posted in old:
            posted.taken_ms = now_ms
            posted.letter = structs.replace(posted.letter, deliveries=posted.letter.deliveries + 1)
        again = tuple(structs.replace(posted.letter, age_ms=now_ms - posted.posted_ms) for posted in old)
        return again if inbox == me else (*again, *self._take(box, count - len(again)))

    async def bury(self, inbox: InstanceId, letter: Letter, payload: bytes, reason: str) -> None:
        """See Store."""
        now_ms = self._clock.now_ms()
        box = self._inbox(inbox)
        self._serial += 1
        box.dead.append(
            DeadLetter(
                id=str(self._serial),
                payload=payload,
                reason=reason,
                letter_id=letter.id,
                deliveries=letter.deliveries,
                first_ms=now_ms - letter.age_ms,
                last_ms=now_ms,
            )
        )

    async def dead_letters(self, inbox: InstanceId, count: int) -> tuple[DeadLetter, ...]:
        """See Store."""
        return tuple(self._inbox(inbox).dead)[:count]

    async def close_inbox(self, me: InstanceId) -> bool:
        """See Store."""
        inbox = self._inbox(me)
        inbox.is_closed = not inbox.waiting and not inbox.taken
        return inbox.is_closed

    async def backlog(self, inbox: InstanceId) -> int:
        """See Store."""
        box = self._inbox(inbox)
        return len(box.waiting) + len(box.taken)

    def _take(self, inbox: _Inbox, count: int) -> tuple[Letter, ...]:
        now_ms = self._clock.now_ms()
        taken = [inbox.waiting.popleft() for _ in range(min(count, len(inbox.waiting)))]
        for posted in taken:
            posted.taken_ms = now_ms
            inbox.taken[posted.letter.id] = posted
        return tuple(structs.replace(posted.letter, age_ms=now_ms - posted.posted_ms) for posted in taken)

    def _open_inbox(self, of: InstanceId) -> None:
        self._inbox(of).is_closed = False

    def _drop_inbox(self, of: InstanceId) -> None:
        inbox = self._inboxes.get(of)
        if inbox is not None:
            inbox.waiting.clear()
            inbox.taken.clear()

    def _inbox(self, of: InstanceId) -> _Inbox:
        inbox = self._inboxes.get(of)
        if inbox is None:
            inbox = self._inboxes[of] = _Inbox()
        return inbox
