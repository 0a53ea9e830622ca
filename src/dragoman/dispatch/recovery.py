"""What is done when the store is there again? It is told what this instance knows, for it may have lost that.

Whatever another instance has taken over meanwhile is let go here: its sessions and nodes are sent away, and find the
other one; its jobs are forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from dragoman.cluster.directory import Directory
from dragoman.cluster.presence import IdTakenError, Presence
from dragoman.core.ids import JobId, NodeId
from dragoman.core.lifecycle import JobState
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.live_jobs import LiveJob
from dragoman.dispatch.results import Results
from dragoman.routing.mailbox import NodeMailbox
from dragoman.routing.session import Session
from dragoman.store.interface import StoreDownError
from dragoman.store.registry import Renewal
from dragoman.telemetry.logs import get_logger

log = get_logger("recovery")

CLOSE_RESTART: Final = 1012
_AT_ONCE: Final = 200
_PAUSE_S: Final = 0.2


class Recovery:
    """Brings the store and this instance to agree again."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        results: Results,
        directory: Directory,
        presence: Presence,
        *,
        owner_ttl_ms: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._router = dispatcher.router
        self._store = dispatcher.store
        self._results = results
        self._directory = directory
        self._presence = presence
        self._owner_ttl_ms = owner_ttl_ms
        self._is_due = asyncio.Event()

    def is_due(self) -> None:
        """The store was away, or has forgotten this instance."""
        self._presence.distrust()
        self._is_due.set()

    async def recover(self) -> None:
        """Wait until it is due, and do it. Raises IdTakenError when another instance has this one's id."""
        await self._is_due.wait()
        try:
            renewal = await self._presence.renew_now()
            if renewal is Renewal.TAKEN:
                raise IdTakenError(f"another instance has taken the id {self._router.me!r}; this one stops")
            if renewal is not None:
                self._is_due.clear()
                await self._restore()
                await self._results.take_held()
                return
        except StoreDownError as error:
            log.warning("not recovered yet", why=str(error))
            self._is_due.set()
        await asyncio.sleep(_PAUSE_S)

    # --- how

    async def _restore(self) -> None:
        sessions, nodes = tuple(self._router.sessions.values()), tuple(self._router.nodes.items())
        jobs = tuple(self._dispatcher.jobs)
        log.warning("telling the store what it may have lost", sessions=len(sessions), nodes=len(nodes), jobs=len(jobs))
        await _all([self._restore_session(session) for session in sessions])
        await _all([self._restore_node(node_id, mailbox) for node_id, mailbox in nodes])
        await _all([self._restore_job(job) for job in jobs])
        self._directory.forget_published()

    async def _restore_session(self, session: Session) -> None:
        is_ours = await self._store.restore_session(
            session.record, session.token_digest, self._router.me, session.place
        )
        if is_ours:
            if session.mailbox is not None and await self._store.has_parked(session.id):
                # Others took this instance for dead, and kept for the session what ended meanwhile.
                session.mailbox.close(CLOSE_RESTART, "connect again for what has ended meanwhile")
            return
        log.warning("session is another instance's by now", session_id=session.id)
        if self._router.sessions.get(session.id) is session:
            del self._router.sessions[session.id]
        if session.mailbox is not None:
            session.mailbox.close(CLOSE_RESTART, "the session goes on elsewhere; connect again")

    async def _restore_node(self, node_id: NodeId, mailbox: NodeMailbox) -> None:
        holder = await self._store.claim_node(node_id, self._router.me, None, self._owner_ttl_ms)
        if holder is not None:
            log.warning("node is another instance's by now", node_id=node_id, holder=holder)
            mailbox.close(CLOSE_RESTART, "this node is connected elsewhere")
            return
        lease_ms = self._dispatcher.policy.lease_ms
        since_ms = self._dispatcher.clock.now_ms() - lease_ms
        holds = [(job_id, it.attempt) for job_id, it in mailbox.assignments.items() if it.given_ms >= since_ms]
        if holds:
            slots = await self._store.restore_slots(node_id, holds, lease_ms)
            self._dispatcher.view.set_used(node_id, slots.used)

    async def _restore_job(self, job: LiveJob) -> None:
        self._store.owe(job.request.session_id, job.id, job.request.utterance_index)
        if not await self._dispatcher.moves.restore(job) or job.node_id is None:
            return
        if job.state is not JobState.CREATED:
            hold: tuple[JobId, int] = (job.id, job.attempt)
            await self._store.restore_slots(job.node_id, [hold], self._dispatcher.policy.lease_ms)


async def _all(steps: Sequence[Awaitable[None]]) -> None:
    """Do many things, some at a time."""
    for start in range(0, len(steps), _AT_ONCE):
        await asyncio.gather(*steps[start : start + _AT_ONCE])
