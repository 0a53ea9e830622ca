"""How does a message get into a socket, without ever waiting for a slow reader?"""

from __future__ import annotations

from dataclasses import dataclass
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

    def queued_bytes(self) -> int:
        """How much waits in memory for the peer to read."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection with a close code."""
        ...


class Mailbox:
    """The bounded out-queue of one connection. A peer that reads too slowly is sent away; it hurts only itself."""

    __slots__ = ("_bytes_max", "_codec", "_wire", "is_closed")

    def __init__(self, wire: Wire, codec: Codec[Any], bytes_max: int) -> None:
        self._wire = wire
        self._codec = codec
        self._bytes_max = bytes_max
        self.is_closed = False

    def post(self, message: msgspec.Struct) -> bool:
        """Send a message; False when the connection is gone or had to be ended."""
        if self.is_closed:
            return False
        if self._wire.queued_bytes() > self._bytes_max:
            self.close(CLOSE_TOO_SLOW, "reads too slowly")
            return False
        self._wire.send(self._codec.encode(message))
        return True

    def close(self, code: int, reason: str) -> None:
        """End the connection; what is posted afterwards goes nowhere."""
        if not self.is_closed:
            self.is_closed = True
            self._wire.close(code, reason)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a node was given: enough to know whether what it says of the job is its business."""

    attempt: int
    session_id: SessionId
    utterance_index: int
    trace_id: TraceId
    given_ms: int


class NodeMailbox(Mailbox):
    """The out-queue of a node. It remembers what the node was given and has not answered."""

    __slots__ = ("assignments",)

    def __init__(self, wire: Wire, codec: Codec[Any], bytes_max: int) -> None:
        super().__init__(wire, codec, bytes_max)
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
