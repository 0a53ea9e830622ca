"""How do instances write to each other? Each has an inbox, kept by the store until what is in it was seen to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from dragoman.core.ids import InstanceId


class Posting(StrEnum):
    """What came of posting a letter."""

    POSTED = "posted"
    FULL = "full"
    """The inbox is near its bound: nothing unread is thrown away for new letters."""
    GONE = "gone"
    """Its instance has left in good order: nobody reads there any more."""


class Letter(Struct, frozen=True, kw_only=True):
    """What one instance wrote to another."""

    id: str
    payload: bytes | None
    """None: there was something that is no letter."""
    age_ms: int
    """Since it was posted, by the store's clock."""
    deliveries: int = 1


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A letter, or a part of one, that could not be delivered."""

    id: str
    payload: bytes
    reason: str
    letter_id: str
    deliveries: int
    first_ms: int
    last_ms: int


class Post(Protocol):
    """Inboxes and dead letters. Letters of one sender to one inbox stay in order."""

    async def post(self, to: InstanceId, payload: bytes, *, is_new_work: bool) -> Posting:
        """Put a letter into an inbox. New work is held back earlier than what ends work."""
        ...

    async def receive(self, me: InstanceId, count: int, block_ms: int) -> tuple[Letter, ...]:
        """New letters, the oldest first; waits for one for `block_ms` (0: not at all) when there are none."""
        ...

    def acknowledge(self, inbox: InstanceId, ids: Sequence[str]) -> None:
        """These were seen to: forget them."""
        ...

    async def unacknowledged(self, inbox: InstanceId, me: InstanceId, idle_ms: int, count: int) -> tuple[Letter, ...]:
        """Letters that were taken out so long ago and not seen to, to be seen to by `me` now."""
        ...

    async def bury(self, inbox: InstanceId, letter: Letter, payload: bytes, reason: str) -> None:
        """Put a letter, or what of it could not be delivered, aside as dead."""
        ...

    async def dead_letters(self, inbox: InstanceId, count: int) -> tuple[DeadLetter, ...]:
        """What was put aside, the oldest first."""
        ...

    async def close_inbox(self, me: InstanceId) -> bool:
        """Nobody will read this inbox any more. False: letters lie in it, it stays open."""
        ...

    async def backlog(self, inbox: InstanceId) -> int:
        """How many letters are in an inbox."""
        ...
