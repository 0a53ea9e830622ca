"""How does a message get into a socket, without ever waiting for a slow reader?"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from dragoman.core.ids import JobId, SessionId, TraceId
from dragoman.protocol.codec import Codec
from dragoman.protocol.node_messages import JobAssign

CLOSE_TOO_SLOW: Final = 1013
"""Close code of a peer that does not read what it is sent (RFC 6455: try again later)."""


class Wire(Protocol):
    """A socket, as a mailbox sees it."""

    def send(self, frame: bytes) -> None:
        """Hand a frame to the socket; it may be kept in memory until the peer reads."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection with a close code."""
        ...


class Mailbox:
    """The bounded out-queue of one connection.

    The bound is kept by the socket, which calls `overflow` when more than that waits for the peer to read: it is sent
    away, and hurts only itself.
    """

    __slots__ = ("_encode", "_send", "_wire", "is_closed")

    def __init__(self, wire: Wire, codec: Codec[Any]) -> None:
        self._wire = wire
        self._send = wire.send
        self._encode = codec.encoder.encode
        self.is_closed = False

    def post(self, message: msgspec.Struct) -> bool:
        """Send a message; False when the connection is gone."""
        if self.is_closed:
            return False
        self._send(self._encode(message))
        return True

    def overflow(self) -> None:
        """The peer reads too slowly."""
        self.close(CLOSE_TOO_SLOW, "reads too slowly")

    def close(self, code: int, reason: str) -> None:
        """End the connection; what is posted afterwards goes nowhere."""
        if not self.is_closed:
            self.is_closed = True
            self._wire.close(code, reason)


class Assignment(msgspec.Struct, frozen=True):
    """What a node was given: enough to know whether what it says of the job is its business."""

    attempt: int
    session_id: SessionId
    utterance_index: int
    trace_id: TraceId
    given_ms: int


class NodeMailbox(Mailbox):
    """The out-queue of a node. It remembers what the node was given and has not answered."""

    __slots__ = ("assignments",)

    def __init__(self, wire: Wire, codec: Codec[Any]) -> None:
        super().__init__(wire, codec)
        self.assignments: dict[JobId, Assignment] = {}

    def assign(self, message: JobAssign, now_ms: int) -> bool:
        """Give the node a job."""
        if not self.post(message):
            return False
        self.assignments[JobId(message.job_id)] = Assignment(
            message.attempt_id,
            SessionId(message.session_id),
            message.utterance_index,
            TraceId(message.trace_id),
            now_ms,
        )
        return True

    def forget_before(self, given_ms: int) -> None:
        """Drop what was given before that time: no answer will come that still counts."""
        while self.assignments:
            job_id, oldest = next(iter(self.assignments.items()))
            if oldest.given_ms >= given_ms:
                return
            del self.assignments[job_id]
