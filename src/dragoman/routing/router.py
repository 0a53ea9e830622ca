"""How does a message reach a session or a node, wherever its socket is?

The router delivers and never decides. What is connected here is reached by its mailbox, what is connected to another
instance by a note to that. A session that nobody holds finds what it is owed in the store.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId
from dragoman.core.job import JobRequest
from dragoman.core.ordering import Missing
from dragoman.protocol.fields import Error
from dragoman.protocol.letters import Assign, Ended, TellNode, TellSession
from dragoman.protocol.node_messages import JobAssign, NodeControl, NodeJobCancel
from dragoman.protocol.session_messages import SessionAsrPartial, Terminal, UiEventKind
from dragoman.routing.mailbox import NodeMailbox
from dragoman.routing.outbox import Outbox
from dragoman.routing.session import Session
from dragoman.store.interface import NOBODY, Owed, Parked, Store
from dragoman.telemetry.logs import get_logger

log = get_logger("router")

HINT_MS: Final = 20
"""Progress is told this much late: no person can see it, and an answer that is faster makes it no news."""

_LEAVING_MS: Final = 60_000
"""An instance that has not stopped by then has started anew."""
_HOMES_MAX: Final = 50_000
"""Sessions of which it is remembered which other instance holds them."""


class Router:
    """The sessions and nodes connected here, by address, and where the others are."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        outbox: Outbox,
        me: InstanceId,
        *,
        resume_window_ms: int,
        job_timeout_ms: int,
        lease_ms: int,
    ) -> None:
        self.me = me
        self.outbox = outbox
        self.sessions: dict[SessionId, Session] = {}
        self.nodes: dict[NodeId, NodeMailbox] = {}
        self.node_homes: dict[NodeId, InstanceId] = {}
        """Nodes that are connected to another instance."""
        self.peers: set[InstanceId] = set()
        """The other instances that are alive."""
        self._leaving: dict[InstanceId, int] = {}
        """Those of them that said that they stop, and until when that is believed."""
        self.resume_window_ms = resume_window_ms
        self._store = store
        self._clock = clock
        self._job_timeout_ms = job_timeout_ms
        self._lease_ms = lease_ms
        self._session_homes: OrderedDict[SessionId, InstanceId] = OrderedDict()
        self._hinted: set[Session] = set()
        self._arriving: dict[SessionId, list[tuple[JobId, int, Terminal]]] = {}
        """Sessions that are about to be held here, with the ends that came too early for them."""

    # --- to nodes

    def assign(self, node_id: NodeId, message: JobAssign) -> bool:
        """Give a node a job; False when it cannot be reached, or surely has no room."""
        mailbox = self.nodes.get(node_id)
        if mailbox is not None:
            now_ms = self._clock.now_ms()
            return mailbox.has_room(now_ms - self._lease_ms) and mailbox.assign(message, now_ms)
        home = self.node_homes.get(node_id)
        if home is None:
            return False
        self.outbox.post(home, Assign(node_id, message, self._job_timeout_ms))
        return True

    def tell_node(self, node_id: NodeId, message: NodeJobCancel | NodeControl) -> None:
        """Say something to a node; lost when it is not there."""
        mailbox = self.nodes.get(node_id)
        if mailbox is not None:
            mailbox.post(message)
            return
        home = self.node_homes.get(node_id)
        if home is not None:
            self.outbox.post(home, TellNode(node_id, message))

    # --- to sessions

    def tell_session(self, session_id: SessionId, message: SessionAsrPartial) -> None:
        """Say something to a session that is worth nothing later."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.tell(message)
            return
        home = self._session_homes.get(session_id)
        if home is not None:
            self.outbox.post(home, TellSession(session_id, message))

    def hint(self, request: JobRequest, event: UiEventKind, now_ms: int) -> None:
        """Tell a session how far its utterance has come, soon; what is overtaken by the end is not told at all."""
        session = self.sessions.get(request.session_id)
        if session is None:
            return
        session.hint(request, event, now_ms)
        if not self._hinted:
            self._clock.call_at(now_ms + HINT_MS, self._tell_hints)
        self._hinted.add(session)

    def begin(self, session_id: SessionId, job_id: JobId, index: int) -> None:
        """An utterance was accepted: its result has a place in the order."""
        session = self.sessions.get(session_id)
        if session is not None and session.begin(job_id, index):
            self._store.note_place(session_id, session.place, (Owed(job_id, index, 0),))

    async def deliver(
        self,
        session_id: SessionId,
        job_id: JobId,
        index: int,
        terminal: Terminal,
        *,
        gone: InstanceId | None = None,
    ) -> int | None:
        """Bring the end of a job to its session, once. Answers when something held back will be due.

        `gone`: that instance is not there any more, even if the store still has it for the session's holder.
        """
        session = self.sessions.get(session_id)
        if session is None:
            await self._deliver_elsewhere(session_id, job_id, index, terminal, gone)
            return None
        if not session.is_news(job_id):
            return session.results.due_ms()
        if isinstance(terminal, Error):
            return await self.deliver_error(session_id, index, terminal, job_id)
        return await self.deliver_result(session_id, job_id, index, terminal)

    async def deliver_result(self, session_id: SessionId, job_id: JobId, index: int, result: Terminal) -> int | None:
        """Bring a result to its session, in order. Answers when something held back will be due."""
        session = self.sessions.get(session_id)
        if session is None:
            await self._deliver_elsewhere(session_id, job_id, index, result)
            return None
        session.drop_hint(job_id)
        session.note_end(job_id)
        await self._settle(session, session.results.end(index, result, self._clock.now_ms()))
        return session.results.due_ms()

    async def deliver_error(
        self, session_id: SessionId, index: int, error: Error, job_id: JobId | None = None
    ) -> int | None:
        """Tell a session at once that an utterance failed. Answers when something held back will be due."""
        session = self.sessions.get(session_id)
        if session is None:
            await self._deliver_elsewhere(session_id, job_id or JobId(""), index, error)
            return None
        named = job_id or (error.details or {}).get("job_id")
        if isinstance(named, str):
            session.drop_hint(JobId(named))
            session.note_end(JobId(named))
        now_ms = self._clock.now_ms()
        await self._conclude(session, *session.send_terminals([error], now_ms))
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

    async def detach(self, session: Session, parked: list[Parked]) -> bool:
        """Keep what a session without a connection is owed. False: another instance holds the session."""
        is_ours = await self._store.park_terminals(session.id, self.me, parked, self.resume_window_ms)
        if is_ours:
            session.parked(parked)
        return is_ours

    def expect(self, session_id: SessionId) -> None:
        """A session is about to be held here: what comes for it waits until then."""
        self._arriving.setdefault(session_id, [])

    def is_expected(self, session_id: SessionId) -> bool:
        """Whether a session is about to be held here."""
        return session_id in self._arriving

    def arrived(self, session_id: SessionId) -> list[tuple[JobId, int, Terminal]]:
        """It is held here now, or not after all. Answers what waited for it: job, utterance index, message."""
        return self._arriving.pop(session_id, [])

    def moved(self, session_id: SessionId, home: InstanceId) -> None:
        """A session goes on at another instance."""
        self._session_homes[session_id] = home
        if len(self._session_homes) > _HOMES_MAX:
            self._session_homes.popitem(last=False)

    def is_leaving(self, peer: InstanceId) -> None:
        """Another instance is about to stop."""
        self._leaving[peer] = self._clock.now_ms() + _LEAVING_MS

    def staying(self) -> set[InstanceId]:
        """The other instances that are alive and not about to stop."""
        now_ms = self._clock.now_ms()
        return {peer for peer in self.peers if self._leaving.get(peer, 0) <= now_ms}

    def forget_home(self, session_id: SessionId) -> None:
        """A session may not be where it was last known to be."""
        self._session_homes.pop(session_id, None)

    def forget_peer(self, peer: InstanceId) -> list[NodeId]:
        """Another instance is gone. Answers the nodes that were connected to it."""
        self.peers.discard(peer)
        self._leaving.pop(peer, None)
        nodes = [node_id for node_id, home in self.node_homes.items() if home == peer]
        for node_id in nodes:
            del self.node_homes[node_id]
        for session_id in [session_id for session_id, home in self._session_homes.items() if home == peer]:
            del self._session_homes[session_id]
        return nodes

    # --- how

    async def _deliver_elsewhere(
        self, session_id: SessionId, job_id: JobId, index: int, terminal: Terminal, gone: InstanceId | None = None
    ) -> None:
        waiting = self._arriving.get(session_id)
        if waiting is not None:
            waiting.append((job_id, index, terminal))
            return
        home = self._session_homes.get(session_id)
        if home in (None, gone) or home not in self.peers:
            home = await self._store.session_owner(session_id)
        # One that has just started may not be known as a peer yet.
        if home not in (None, self.me, gone) and (home in self.peers or await self._store.is_alive(home)):
            self.moved(session_id, home)
            self.outbox.post(home, Ended(session_id, job_id, index, terminal))
            return
        parked, seen = Parked(serial=0, message=terminal), home or NOBODY
        if await self._store.park_terminals(session_id, None, [parked], self.resume_window_ms, seen=seen):
            return
        if await self._store.session_owner(session_id) in (home, None):
            log.info("nobody wants the end of a job any more", session_id=session_id, job_id=job_id)
        else:
            # Somebody has resumed it just now.
            await self.deliver(session_id, job_id, index, terminal)

    def _tell_hints(self) -> None:
        hinted, self._hinted = self._hinted, set()
        for session in hinted:
            session.tell_hints()

    async def _settle(self, session: Session, out: list[Terminal | Missing]) -> None:
        if out:
            await self._conclude(session, *session.settle(out, self._clock.now_ms()))

    async def _conclude(self, session: Session, to_park: list[Parked], numbered: list[Owed]) -> None:
        """Note what was sent, and keep what could not be."""
        self._store.note_place(session.id, session.place, numbered)
        if passed_over := session.take_passed_over():
            self._store.settle(session.id, passed_over)
        # If another instance has the session by now, it asks for what is left of it here.
        if to_park and await self._store.park_terminals(session.id, self.me, to_park, self._parking_ms(session)):
            session.parked(to_park)

    def _parking_ms(self, session: Session) -> int:
        # The window for a resume runs from the loss of the connection; a result that comes later does not lengthen it.
        since_ms = session.detached_ms
        if since_ms is None:
            return self.resume_window_ms
        return max(0, since_ms + self.resume_window_ms - self._clock.now_ms())
