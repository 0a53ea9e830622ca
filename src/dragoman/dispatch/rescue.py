"""What saves a job when nothing happens, or the wrong thing: time-outs, lost nodes, lapsed leases."""

from __future__ import annotations

from collections.abc import Sequence

from dragoman.clock import Clock
from dragoman.cluster.membership import Membership
from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.lifecycle import AT_A_NODE, JobState
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.live_jobs import LiveJob
from dragoman.dispatch.outcomes import FailoverReason
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.letters import Lapsed
from dragoman.store.interface import Hold, StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("rescue")

_LOOK_AGAIN_MS = 1000


class Rescue:
    """Sees to it that every job ends in bounded time."""

    def __init__(self, dispatcher: Dispatcher, membership: Membership, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._membership = membership
        self._clock = clock
        self._suspects: set[Hold] = set()
        self._audited = 0

    async def answer_alarms(self) -> None:
        """Look at every job and session whose time has come."""
        for due_ms, key in self._dispatcher.alarms.take_due():
            try:
                await self._answer(due_ms, key)
            except StoreDownError:
                # Nothing can be moved now. It is looked at again when that may be over.
                self._dispatcher.alarms.set(self._clock.now_ms() + _LOOK_AGAIN_MS, key)
                job = self._dispatcher.jobs.get(JobId(key))
                if job is not None:
                    job.due_ms = self._clock.now_ms() + _LOOK_AGAIN_MS
            except Exception:  # one that fails must not keep the others from being looked at
                log.exception("alarm not answered", key=key)

    async def _answer(self, due_ms: int, key: str) -> None:
        job = self._dispatcher.jobs.get(JobId(key))
        if job is None:
            session_id = SessionId(key)
            self._dispatcher.watch_results(session_id, await self._dispatcher.router.release_results(session_id))
        elif job.due_ms == due_ms:
            job.due_ms = None
            await self._examine(job)

    async def node_lost(self, node_id: NodeId) -> None:
        """A node's socket closed, or it fell silent: its jobs move.

        It may still be at work on them and come back: their slots stay taken until it says otherwise.
        """
        for job in self._dispatcher.jobs.at(node_id):
            await self._dispatcher.fail_over(job, FailoverReason.NODE_LOST, release=False)

    async def session_over(self, session_id: SessionId) -> None:
        """A session will not come back: nobody wants its jobs."""
        for job in self._dispatcher.jobs.of(session_id):
            await self._dispatcher.cancel(session_id, job.id)
        self._dispatcher.rankings.forget_session(session_id)

    async def session_over_elsewhere(self, session_id: SessionId) -> None:
        """A session that began on another instance is over: nobody wants the jobs that are seen to there either."""
        for owed in await self._dispatcher.store.owed_jobs(session_id):
            if not owed.serial and self._dispatcher.jobs.get(owed.job_id) is None:
                await self._dispatcher.cancel(session_id, owed.job_id)

    async def lapse(self) -> None:
        """Give back slots whose lease ran out; a job that still relied on one gets another attempt."""
        dispatcher = self._dispatcher
        for hold in await dispatcher.store.lapse_slots():
            dispatcher.metrics.lapsed_slots.inc()
            dispatcher.view.give_back(hold.node_id)
            log.warning(
                "slot given back, its lease ran out", node_id=hold.node_id, job_id=hold.job_id, attempt=hold.attempt
            )
            mailbox = dispatcher.router.nodes.get(hold.node_id)
            if mailbox is not None:
                mailbox.forget(hold.job_id, hold.attempt)
            await self.lapsed(hold)
            await dispatcher.serve_waiting(hold.node_id)

    async def lapsed(self, hold: Hold) -> None:
        """The slot of an attempt was given back: whoever sees to the job must know, if it still relied on that."""
        dispatcher = self._dispatcher
        live = dispatcher.jobs.get(hold.job_id)
        if live is not None:
            if (live.node_id, live.attempt) == (hold.node_id, hold.attempt):
                await dispatcher.fail_over(live, FailoverReason.LEASE_LAPSED, release=False)
            return
        job = await dispatcher.store.read_job(hold.job_id)
        is_relied_on = job is not None and (job.node_id, job.attempt) == (hold.node_id, hold.attempt)
        if job is not None and is_relied_on and job.owner in dispatcher.router.peers:
            dispatcher.router.outbox.post(job.owner, Lapsed(hold.job_id, hold.attempt, hold.node_id))

    async def audit(self, node_ids: Sequence[NodeId]) -> None:
        """Compare the slots that these nodes have taken with the jobs they are taken for.

        A hold that no job relies on, seen twice, is a leak: it becomes one whose attempt is over, which the node gives
        back when it next says what it runs, and the lease at the latest.
        """
        dispatcher = self._dispatcher
        idle = set(await dispatcher.store.idle_holds(node_ids))
        for hold in sorted(idle & self._suspects):
            log.warning("leaked slot found", node_id=hold.node_id, job_id=hold.job_id, attempt=hold.attempt)
            dispatcher.metrics.leaked_slots.inc()
            await dispatcher.store.orphan_slot(hold, dispatcher.policy.lease_ms)
        of_these = set(node_ids)
        self._suspects = {hold for hold in self._suspects if hold.node_id not in of_these} | (idle - self._suspects)

    def next_to_audit(self, count: int) -> list[NodeId]:
        """The next nodes connected here to be audited, in turn."""
        nodes = list(self._dispatcher.router.nodes)
        if not nodes:
            return []
        start = self._audited % len(nodes)
        self._audited = start + count
        return nodes[start : start + count]

    async def end_all(self, code: ErrorCode, text: str) -> None:
        """Give up whatever is under way: the instance stops."""
        for job in self._dispatcher.jobs:
            error = self._dispatcher.answers.error(job.request, code, text, is_retryable=True)
            await self._dispatcher.give_up(job, error, JobState.FAILED)

    async def _examine(self, job: LiveJob) -> None:
        dispatcher, now_ms = self._dispatcher, self._clock.now_ms()
        request = job.request
        if request.deadline_ms is not None and request.deadline_ms <= now_ms:
            text = f"not done within the {request.deadline_ms - request.accepted_ms} ms it had"
            error = dispatcher.answers.error(request, ErrorCode.DEADLINE_EXCEEDED, text, is_retryable=False)
            await dispatcher.give_up(job, error, JobState.EXPIRED)
        elif job.next_due_ms(dispatcher.policy) > now_ms:
            dispatcher.watch(job)
        elif job.state is JobState.CREATED:
            refusal = dispatcher.answers.count_refusals(request.need)
            await dispatcher.give_up(job, dispatcher.answers.no_node(request, refusal), JobState.FAILED)
        elif job.state in AT_A_NODE:
            await self._overdue(job)
        else:
            # Between reserving and handing over: whoever does that is about to set the alarm anew.
            dispatcher.alarms.set(now_ms + _LOOK_AGAIN_MS, job.id)
            job.due_ms = now_ms + _LOOK_AGAIN_MS

    async def _overdue(self, job: LiveJob) -> None:
        assert job.node_id is not None
        has_acked = job.state is not JobState.DISPATCHED
        self._membership.job_ended(job.node_id, is_good=False)
        reason = FailoverReason.JOB_TIMEOUT if has_acked else FailoverReason.ACK_TIMEOUT
        await self._dispatcher.fail_over(job, reason, release=False)
