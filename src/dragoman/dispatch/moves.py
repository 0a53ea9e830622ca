"""How does a live job move in the store, when the store may have lost what it knew?

A store that failed over, or started from nothing, may have lost its last writes. An attempt's number never goes back,
so whoever has the higher one knows more: what the store lost, it is told again, and the move is tried once more. And a
step may have been done although its answer never came: then this instance catches up with what the store says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from dragoman.core.ids import InstanceId, NodeId
from dragoman.core.lifecycle import ENDED, JobState
from dragoman.dispatch.live_jobs import LiveJob, LiveJobs, ids
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import Job, Moved, Restored, Stale, Store
from dragoman.telemetry.logs import get_logger

log = get_logger("dispatch")


class Moves:
    """The moves of this instance's live jobs."""

    def __init__(
        self,
        store: Store,
        me: InstanceId,
        jobs: LiveJobs,
        drop: Callable[[LiveJob], None],
        conclude: Callable[[LiveJob, JobState, Terminal], Awaitable[None]],
    ) -> None:
        """`drop` lets go of a job that is another's, `conclude` tells how one has ended already."""
        self._store = store
        self._me = me
        self._jobs = jobs
        self._drop = drop
        self._conclude = conclude

    async def requeue(self, job: LiveJob, *, release: bool) -> bool:
        """Note that the attempt is over. False when it was not the current one, or the job has ended."""
        attempt = job.attempt
        moved = await self._store.requeue_job(job.id, attempt, release=release)
        if isinstance(moved, Stale) and await self.reconcile(job, attempt, moved):
            moved = await self._store.requeue_job(job.id, attempt, release=release)
        is_done = isinstance(moved, Moved) or (moved == Stale(JobState.CREATED, attempt) and await self._is_ours(job))
        return is_done and self._jobs.get(job.id) is job

    async def end(
        self, job: LiveJob, node_id: NodeId | None, to: JobState, terminal: Terminal, *, keep_ms: int, release: bool
    ) -> bool:
        """End a job. False when it has ended, is another's, or not at this attempt."""
        attempt = job.attempt
        moved = await self._store.end_job(job.id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        if isinstance(moved, Stale) and await self.reconcile(job, attempt, moved):
            moved = await self._store.end_job(job.id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        return isinstance(moved, Moved) and self._jobs.get(job.id) is job

    async def reconcile(self, job: LiveJob, attempt: int, stale: Stale) -> bool:
        """The store does not know this attempt of a job. Tell it what we know, if that is more; True if it took that.

        A job that is another instance's by now is dropped here.
        """
        if self._jobs.get(job.id) is not job or job.attempt != attempt:
            return False
        if stale.state is None or (stale.attempt < attempt and stale.state not in ENDED):
            return await self.restore(job)
        if await self._is_ours(job) and stale.attempt > attempt:
            # A slot was taken for another attempt, and the node was never told.
            job.attempt = stale.attempt
            await self._store.requeue_job(job.id, stale.attempt, release=True)
            return True
        return False

    async def restore(self, job: LiveJob) -> bool:
        """Write again what is known here of a job. False: it is another instance's, and was dropped here."""
        match await self._store.restore_job(job.request, self._me, job.state, job.attempt, job.node_id):
            case Restored.TAKEN:
                await self._is_ours(job)
                return False
            case Restored.RESTORED:
                log.warning("the store had lost a job", **ids(job))
                return True
            case Restored.KEPT:
                return True

    async def claim(self, job: Job) -> Job | None:
        """A job that somebody asks for and nobody sees to. None when its owner does.

        Its owner is dead, or it is ours, by a step whose answer did not come.
        """
        if job.owner == self._me:
            return job
        if await self._store.is_alive(job.owner):
            return None
        adopted = await self._store.adopt_job(job.job_id, job.owner, self._me)
        return adopted if adopted is not None and adopted.owner == self._me and adopted.state not in ENDED else None

    async def _is_ours(self, job: LiveJob) -> bool:
        """Whether a job is this instance's and has not ended. If not, it is let go of here, and its end is told."""
        known = await self._store.read_job(job.id)
        if known is None or self._jobs.get(job.id) is not job:
            return False
        if known.owner != self._me:
            log.warning("job is another instance's by now", **ids(job))
            self._drop(job)
            return False
        if known.state not in ENDED:
            return True
        log.warning("job has ended already", state=known.state, **ids(job))
        if known.terminal is None:
            self._drop(job)
        else:
            await self._conclude(job, known.state, known.terminal)
        return False
