"""What becomes of what a dead instance left? The survivors see to its jobs, its letters and its sessions, once.

Whoever claims the estate does it. Each job is adopted by compare-and-set, so that even two who both believe that they
hold the claim cannot both adopt one.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dragoman.cluster.directory import Directory
from dragoman.cluster.presence import Presence
from dragoman.core.ids import InstanceId, JobId, SessionId
from dragoman.core.lifecycle import ENDED
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.inbox import Inbox
from dragoman.dispatch.rescue import Rescue
from dragoman.store.interface import StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("estate")

_LEASE_MS: Final = 10_000
_AT_ONCE: Final = 100
"""Sessions looked at together."""
_OPEN_MS: Final = 2_000
"""How long letters are still looked for: others may write to the dead until they have noticed too."""


class Estate:
    """Notices deaths, and takes over what the dead left."""

    def __init__(
        self, dispatcher: Dispatcher, rescue: Rescue, inbox: Inbox, directory: Directory, presence: Presence
    ) -> None:
        self._dispatcher = dispatcher
        self._router = dispatcher.router
        self._store = dispatcher.store
        self._rescue = rescue
        self._inbox = inbox
        self._directory = directory
        self._presence = presence
        self._since_ms: dict[InstanceId, int] = {}

    async def look(self) -> None:
        """See who is not there any more, and what is to be done about it."""
        seen = await self._presence.look()
        for peer in seen.gone:
            log.warning("instance is gone", peer=peer)
            for node_id in self._directory.peer_gone(peer):
                await self._rescue.node_lost(node_id)
            await self._adopt_of_moved_sessions(peer)
        for dead in seen.dead:
            await self.take_over(dead)

    async def come_back(self) -> None:
        """See to what an earlier life of this instance left, if it had the same id."""
        me = self._router.me
        for session_id in await self._store.sessions_of(me):
            jobs, _ = await self._take_session(session_id, me)
            if jobs:
                log.warning("jobs of an earlier life go on", session_id=session_id, jobs=jobs)

    async def take_over(self, dead: InstanceId) -> None:
        """See to what an instance left, unless another one does."""
        me = self._router.me
        if not await self._store.claim_estate(dead, me, _LEASE_MS):
            return
        now_ms = self._dispatcher.clock.now_ms()
        if dead not in self._since_ms:
            log.warning("taking over what an instance left", peer=dead)
        since_ms = self._since_ms.setdefault(dead, now_ms)
        jobs = sessions = 0
        left = await self._store.sessions_of(dead)
        for start in range(0, len(left), _AT_ONCE):
            part = left[start : start + _AT_ONCE]
            taken = await asyncio.gather(*(self._take_session(session_id, dead) for session_id in part))
            jobs += sum(adopted for adopted, _ in taken)
            sessions += sum(was_held for _, was_held in taken)
            await self._store.claim_estate(dead, me, _LEASE_MS)
        await self._inbox.inherit(dead)
        if sessions or jobs:
            log.warning("took over what an instance left", peer=dead, sessions=sessions, jobs=jobs)
        if now_ms - since_ms >= _OPEN_MS:
            del self._since_ms[dead]
            await self._store.close_estate(dead)

    async def _take_session(self, session_id: SessionId, dead: InstanceId) -> tuple[int, bool]:
        """Adopt the jobs of a session. Answers how many, and whether it was still the dead one's."""
        try:
            if await self._store.session_owner(session_id) not in (dead, None):
                return 0, False
            adopted = await self._adopt_of(session_id, dead)
            await self._store.park_terminals(session_id, None, (), self._router.resume_window_ms)
        except StoreDownError as error:
            if not self._store.is_up:
                raise
            # It is only this one that cannot be used.
            log.warning("session not taken over", session_id=session_id, why=str(error))
            return 0, False
        return adopted, True

    async def _adopt_of_moved_sessions(self, peer: InstanceId) -> None:
        """Sessions that came here from elsewhere may have jobs that the one that is gone saw to."""
        moved = [session.id for session in self._router.sessions.values() if session.has_moved]
        for start in range(0, len(moved), _AT_ONCE):
            part = moved[start : start + _AT_ONCE]
            await asyncio.gather(*(self._adopt_of(session_id, peer) for session_id in part))

    async def _adopt_of(self, session_id: SessionId, dead: InstanceId) -> int:
        """Adopt the jobs of a session that a dead instance saw to. Answers how many."""
        adopted = 0
        for owed in await self._store.owed_jobs(session_id):
            if not owed.serial:
                adopted += await self._adopt_or_pass(owed.job_id, dead)
        return adopted

    async def _adopt_or_pass(self, job_id: JobId, dead: InstanceId) -> bool:
        try:
            return await self._adopt(job_id, dead)
        except StoreDownError as error:
            if not self._store.is_up:
                raise
            log.warning("job not adopted", job_id=job_id, why=str(error))
            return False

    async def _adopt(self, job_id: JobId, dead: InstanceId) -> bool:
        if self._dispatcher.jobs.get(job_id) is not None:
            return False
        job = await self._store.adopt_job(job_id, dead, self._router.me)
        if job is None or job.owner != self._router.me or job.state in ENDED:
            return False
        await self._dispatcher.adopt(job)
        return True
