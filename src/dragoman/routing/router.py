"""How does a message reach a session or a node, wherever its socket is?

The router delivers and never decides. An address that is not on this instance cannot be reached: with one instance
there is nowhere else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dragoman.clock import Clock
from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import JobRequest
from dragoman.core.ordering import Missing
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import JobAssign
from dragoman.protocol.session_messages import Terminal, UiEventKind
from dragoman.routing.mailbox import NodeMailbox
from dragoman.routing.session import Session
from dragoman.store.interface import Parked, Store

HINT_MS: Final = 20
"""Progress is told this much late: no person can see it, and an answer that is faster makes it no news."""


class Router:
    """The sessions and nodes connected here, by address."""

    def __init__(self, store: Store, clock: Clock, *, resume_window_ms: int) -> None:
        self.sessions: dict[SessionId, Session] = {}
        self.nodes: dict[NodeId, NodeMailbox] = {}
        self.resume_window_ms = resume_window_ms
        self._store = store
        self._clock = clock
        self._hinted: set[Session] = set()

    def assign(self, node_id: NodeId, message: JobAssign) -> bool:
        """Give a node a job; False when it cannot be reached."""
        mailbox = self.nodes.get(node_id)
        return mailbox is not None and mailbox.assign(message, self._clock.now_ms())

    def tell_node(self, node_id: NodeId, message: msgspec.Struct) -> None:
        """Say something to a node; lost when it is not there."""
        mailbox = self.nodes.get(node_id)
        if mailbox is not None:
            mailbox.post(message)

    def tell_session(self, session_id: SessionId, message: msgspec.Struct) -> None:
        """Say something to a session that is worth nothing later."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.tell(message)

    def hint(self, request: JobRequest, event: UiEventKind, now_ms: int) -> None:
        """Tell a session how far its utterance has come, soon; what is overtaken by the end is not told at all."""
        session = self.sessions.get(request.session_id)
        if session is None:
            return
        session.hint(request, event, now_ms)
        if not self._hinted:
            self._clock.call_at(now_ms + HINT_MS, self._tell_hints)
        self._hinted.add(session)

    def begin(self, session_id: SessionId, index: int) -> None:
        """An utterance was accepted: its result has a place in the order."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.results.begin(index)

    async def deliver_result(self, session_id: SessionId, job_id: JobId, index: int, result: Terminal) -> int | None:
        """Bring a result to its session, in order. Answers when something held back will be due."""
        session = self.sessions.get(session_id)
        if session is None:
            return None
        session.drop_hint(job_id)
        now_ms = self._clock.now_ms()
        to_park = session.settle(session.results.end(index, result, now_ms), now_ms)
        if to_park:
            await self._park(session, to_park)
        return session.results.due_ms()

    async def deliver_error(self, session_id: SessionId, index: int, error: Error) -> int | None:
        """Tell a session at once that an utterance failed. Answers when something held back will be due."""
        session = self.sessions.get(session_id)
        if session is None:
            return None
        job_id = (error.details or {}).get("job_id")
        if isinstance(job_id, str):
            session.drop_hint(JobId(job_id))
        now_ms = self._clock.now_ms()
        await self._park(session, session.send_terminals([error], now_ms))
        if not session.results.is_too_far(index):
            await self._settle(session, session.results.end(index, None, now_ms))
        return session.results.due_ms()

    async def release_results(self, session_id: SessionId) -> int | None:
        """Let go what has waited long enough for earlier results. Answers when the next will be due."""
        session = self.sessions.get(session_id)
        if session is None:
            return None
        await self._settle(session, session.results.release(self._clock.now_ms()))
        return session.results.due_ms()

    async def flush(self, session: Session) -> None:
        """Let go whatever is held back: nothing earlier will come."""
        await self._settle(session, session.results.release(self._clock.now_ms() + session.results.gap_timeout_ms))

    async def detach(self, session: Session, parked: list[Parked]) -> None:
        """Keep what a session without a connection is owed."""
        await self._store.park_terminals(session.id, parked, self.resume_window_ms)

    def _tell_hints(self) -> None:
        hinted, self._hinted = self._hinted, set()
        for session in hinted:
            session.tell_hints()

    async def _settle(self, session: Session, out: list[Terminal | Missing]) -> None:
        if out:
            await self._park(session, session.settle(out, self._clock.now_ms()))

    async def _park(self, session: Session, parked: list[Parked]) -> None:
        if parked:
            await self._store.park_terminals(session.id, parked, self._parking_ms(session))

    def _parking_ms(self, session: Session) -> int:
        # The window for a resume runs from the loss of the connection; a result that comes later does not lengthen it.
        since_ms = session.detached_ms
        if since_ms is None:
            return self.resume_window_ms
        return max(0, since_ms + self.resume_window_ms - self._clock.now_ms())
