"""What does a session carry? Whole utterances (see ledger) or one stream of audio (see feed)."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeAlias

from dragoman.client.errors import DragomanError
from dragoman.protocol.session_messages import (
    AudioChunk,
    ClientJobCancel,
    SessionAsrPartial,
    Terminal,
    UiEvent,
    Utterance,
)


class Beat(Enum):
    """A heartbeat is wanted at this place among the messages."""

    BEAT = "beat"


Outgoing: TypeAlias = Utterance | AudioChunk | ClientJobCancel | Beat


class Traffic(Protocol):
    """What the line asks for messages to send, and tells what comes back. Nothing here waits."""

    def next_message(self, session_id: str, *, is_held: bool) -> Outgoing | None:
        """What is to be sent next; nothing new while the scheduler wants a pause (`is_held`)."""
        ...

    def note(self, message: UiEvent | SessionAsrPartial) -> None:
        """There is news of an utterance."""
        ...

    def end(self, index: int, terminal: Terminal) -> None:
        """An utterance ended."""
        ...

    def spoil(self, index: int, reason: str) -> None:
        """An utterance ended in a message that makes no sense."""
        ...

    def beat_sent(self) -> None:
        """A heartbeat went out; what was sent before it is with the scheduler when it is answered."""
        ...

    def beat_answered(self) -> None:
        """The oldest heartbeat that was not answered yet was."""
        ...

    def resumed(self) -> None:
        """The session goes on over another connection; what was on its way may have been lost."""
        ...

    def restarted(self) -> None:
        """There is a new session in place of the old one, which knows of nothing."""
        ...

    def was_too_long(self) -> None:
        """The scheduler hung up on a message longer than it takes."""
        ...

    def fail(self, error: DragomanError) -> None:
        """Nothing more will be sent, and nothing will come."""
        ...
