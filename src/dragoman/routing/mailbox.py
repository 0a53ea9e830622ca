"""How does a message get into a socket, without ever waiting for a slow reader?"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from dragoman.core.ids import InstanceId, JobId, SessionId, TraceId
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


class NodeWire(Wire, Protocol):
    """The socket of a node."""

    async def is_alive(self) -> bool:
        """Whether the node answers when it is asked for a sign of life."""
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
    owner: InstanceId | None
    """The other instance that sees to the job; None: this one does."""


class NodeMailbox(Mailbox):
    """The out-queue of a node. It remembers what the node was given and has not answered."""

    __slots__ = ("assignments", "is_alive", "slots")

    def __init__(self, wire: NodeWire, codec: Codec[Any]) -> None:
        super().__init__(wire, codec)
        self.is_alive = wire.is_alive
        self.assignments: dict[JobId, Assignment] = {}
        self.slots = 0
        """How many jobs the node takes at a time."""

    def assign(self, message: JobAssign, now_ms: int, owner: InstanceId | None = None) -> bool:
        """Give the node a job; False when the connection is gone.

        The same attempt again is not given again: notes between instances may come twice.
        """
        job_id = JobId(message.job_id)
        known = self.assignments.get(job_id)
        if known is not None and known.attempt == message.attempt_id:
            return True
        if not self.post(message):
            return False
        self.assignments[job_id] = Assignment(
            message.attempt_id,
            SessionId(message.session_id),
            message.utterance_index,
            TraceId(message.trace_id),
            now_ms,
            owner,
        )
        return True

    def has_room(self, since_ms: int) -> bool:
        """Whether the node can have another job, as far as is known here.

        Who counts is the store. But it may have lost what it knew, and then this is what keeps the node from getting
        more than it can carry. What was given before `since_ms` has no slot any more.
        """
        if len(self.assignments) < self.slots:
            return True
        return sum(given.given_ms >= since_ms for given in self.assignments.values()) < self.slots

    def forget(self, job_id: JobId, attempt: int) -> None:
        """The node is done with an attempt."""
        known = self.assignments.get(job_id)
        if known is not None and known.attempt == attempt:
            del self.assignments[job_id]

    def forget_before(self, given_ms: int) -> None:
        """Drop what was given before that time: no answer will come that still counts."""
        while self.assignments:
            job_id, oldest = next(iter(self.assignments.items()))
            if oldest.given_ms >= given_ms:
                return
            del self.assignments[job_id]
