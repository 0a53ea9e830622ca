"""How does a request become a job at a node? The straight path: rank, reserve, hand over; or wait; or say why not."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from dragoman.clock import Clock
from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import ENDED, JobState
from dragoman.core.node import NodeStatus
from dragoman.core.selection import Ranking, SelectionPolicy
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.alarms import Alarms
from dragoman.dispatch.answers import Answers
from dragoman.dispatch.demand import Demands
from dragoman.dispatch.live_jobs import DispatchPolicy, LiveJob, LiveJobs, ids, names
from dragoman.dispatch.moves import Moves
from dragoman.dispatch.outcomes import (
    FAILURE_CODES,
    REFUSALS,
    Accepted,
    AlreadyKnown,
    FailoverReason,
    Refused,
    Submission,
)
from dragoman.dispatch.rankings import Rankings
from dragoman.protocol.assignment import make_assignment
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.letters import Withdraw
from dragoman.protocol.node_messages import NodeJobCancel
from dragoman.protocol.session_messages import Terminal, UiEventKind
from dragoman.routing.router import Router
from dragoman.store.interface import AllFull, Job, Known, Reserved, Stale, Store, StoreDownError
from dragoman.telemetry.logs import get_logger
from dragoman.telemetry.metrics import Metrics

log = get_logger("dispatch")

_RANKINGS_MAX: Final = 3
"""Rankings tried for an attempt, one after another, before the job waits for a slot."""


class Dispatcher:
    """The path of a job from its session to its node."""

    def __init__(
        self,
        *,
        store: Store,
        router: Router,
        view: FleetView,
        selection: SelectionPolicy,
        policy: DispatchPolicy,
        waiting: WaitingRoom,
        alarms: Alarms,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self.router = router
        self.view = view
        self.policy = policy
        self.waiting = waiting
        self.alarms = alarms
        self.clock = clock
        self.metrics = metrics
        self.jobs = LiveJobs()
        self.moves = Moves(store, router.me, self.jobs, self.drop, self.conclude)
        self.progress: dict[JobId, LiveJob] = {}
        """Jobs that have come further than the store knows."""
        self.has_progress = asyncio.Event()
        self.is_hungry = asyncio.Event()
        """Set when jobs begin to wait, here or (see Feeding) elsewhere."""
        self.freed: set[NodeId] = set()
        """Nodes connected here that may have a free slot since somebody last looked."""
        self.is_draining = False
        self.answers = Answers(view, waiting, clock, metrics)
        self.demands = Demands(view)
        self.rankings = Rankings(view, waiting, selection, rng, metrics, spread_ms=policy.spread_ms)

    async def submit(self, request: JobRequest) -> Submission:
        """Take an utterance: it is given to a node, waits with a known deadline, or is refused with the reasons."""
        live = self.jobs.get(request.job_id)
        if live is not None:
            return AlreadyKnown(live.id, live.state, None)
        try:
            return await self._submit(request)
        except StoreDownError as error:
            text = f"the shared store cannot be used now: {error}"
            down = self.answers.error(request, ErrorCode.SCHEDULER_DEPENDENCY_DOWN, text, is_retryable=True)
            self.metrics.refusals.labels(down.code).inc()
            return self._refuse(down, request)

    async def _submit(self, request: JobRequest) -> Submission:
        now_ms = self.clock.now_ms()
        refused, ranking = self._admit(request, now_ms)
        if refused is not None:
            return await self._known(request) or self._refuse(refused, request)
        # Before there is a job there is a debt: if this instance dies now, somebody knows of it.
        self.store.owe(request.session_id, request.job_id, request.utterance_index)
        match await self.store.open_job(request, self.router.me, ranking, self.policy.lease_ms):
            case Known(job):
                return await self._already(job)
            case Reserved() as reserved:
                live = self._begin(request)
                await self._hand_over(live, reserved, now_ms)
            case AllFull(tried):
                self.view.correct(tried)
                live = self._begin(request)
                if tried:
                    await self.find_node(live)
                else:
                    self._wait(live, now_ms)
        return Accepted(live.id, live.state)

    async def adopt(self, job: Job) -> None:
        """See to a job of an instance that died."""
        if job.request is None or self.jobs.get(job.job_id) is not None:
            return
        live = self._begin(job.request)
        live.attempt = live.failures = job.attempt
        log.warning("job adopted", state=job.state, **ids(live) | {"node_id": job.node_id})
        if job.node_id is None:
            await self.find_node(live)
            return
        self.jobs.place(live, job.node_id, job.attempt)
        live.state = JobState.DISPATCHED if job.state is JobState.RESERVED else job.state
        live.given_ms = self.clock.now_ms()
        entry = self.view.get(job.node_id)
        if entry is None or entry.health.status is NodeStatus.OFFLINE:
            await self.fail_over(live, FailoverReason.NODE_LOST, release=False)
        else:
            self.watch(live)

    async def tell_progress(self) -> None:
        """Write down how far jobs have come that are not over already."""
        progress, self.progress = self.progress, {}
        self.has_progress.clear()
        for job in progress.values():
            if job.node_id is not None and self.jobs.get(job.id) is job:
                await self.store.advance_job(job.id, job.attempt, job.node_id, job.state)

    async def find_node(self, job: LiveJob) -> None:
        """Look for a node for another attempt; without one the job waits, or is given up."""
        try:
            is_settled = await self._try_nodes(job)
        except StoreDownError as error:
            log.warning("no node can be reserved now", why=str(error), **ids(job))
            is_settled = False
        if is_settled or self.jobs.get(job.id) is not job or job.node_id is not None:
            return
        if self.policy.waiting_ms == 0 or self.waiting.is_full:
            await self.give_up(job, self.answers.queue_full(job.request), JobState.FAILED)
            return
        self._wait(job, self.clock.now_ms())

    async def _try_nodes(self, job: LiveJob) -> bool:
        """Try the nodes believed free, and those believed so after that. False when the job has to wait."""
        for _ in range(_RANKINGS_MAX):
            now_ms = self.clock.now_ms()
            ranking = self.rankings.next(job, now_ms)
            if not isinstance(ranking, Ranking):
                if ranking.is_worth_waiting:
                    return False
                await self.give_up(job, self.answers.no_node(job.request, ranking), JobState.FAILED)
                return True
            match await self.store.reserve_slot(job.id, job.attempt, ranking.candidates, self.policy.lease_ms):
                case Reserved() as reserved:
                    await self._hand_over(job, reserved, now_ms)
                    return True
                case AllFull(tried):
                    self.view.correct(tried)
                case Stale() as stale:
                    await self._not_waiting(job, stale)
                    return True
            if self.jobs.get(job.id) is not job or job.node_id is not None:
                return True
        return False

    async def serve_waiting(self, node_id: NodeId) -> None:
        """A node may have a free slot: give it the jobs that wait for one like it."""
        while len(self.waiting):
            entry = self.view.get(node_id)
            if entry is None or entry.used >= entry.node.slots or entry.health.status is not NodeStatus.READY:
                return
            job_id = self.waiting.next_for(entry, self.clock.now_ms(), lambda job_id: self._has_tried(job_id, node_id))
            if job_id is None:
                return
            self.waiting.remove(job_id)
            job = self.jobs.get(job_id)
            if job is None:
                continue
            candidate, now_ms = Candidate(node_id, entry.node.slots), self.clock.now_ms()
            match await self.store.reserve_slot(job.id, job.attempt, (candidate,), self.policy.lease_ms):
                case Reserved() as reserved:
                    await self._hand_over(job, reserved, now_ms)
                case AllFull(tried):
                    self.view.correct(tried)
                    if self.jobs.get(job.id) is job and job.node_id is None:
                        self._wait_on(job)
                    return
                case Stale() as stale:
                    await self._not_waiting(job, stale)

    async def fail_over(self, job: LiveJob, reason: FailoverReason, *, release: bool) -> None:
        """The attempt failed: look for another node, or give the job up when it has had all its attempts.

        `release` tells that the node is surely not at work on it; otherwise it keeps the slot until it says so.
        """
        node_id = job.node_id
        if node_id is None or not await self.moves.requeue(job, release=release):
            return
        if release:
            self.view.give_back(node_id)
        else:
            self.tell_to_stop(node_id, job, reason)
        self.jobs.displace(job)
        job.failed(node_id, had_it=reason is not FailoverReason.UNREACHABLE)
        self.metrics.reassignments.labels(reason).inc()
        log.warning("attempt failed", reason=reason, **ids(job) | {"node_id": node_id})
        if job.is_hopeless(self.policy):
            text = f"{job.attempt} nodes failed at it, the last one by {reason.replace('_', ' ')}"
            error = self.answers.error(job.request, FAILURE_CODES[reason], text, is_retryable=True)
            await self.give_up(job, error, JobState.FAILED)
            return
        await self.find_node(job)

    async def cancel(self, session_id: SessionId, job_id: JobId) -> bool:
        """Withdraw a job for its session; False when the session has no such job under way."""
        job = self.jobs.get(job_id)
        if job is None:
            return await self._cancel_elsewhere(session_id, job_id)
        if job.request.session_id != session_id:
            return False
        error = self.answers.error(job.request, ErrorCode.JOB_CANCELLED, "withdrawn by the client", is_retryable=False)
        await self.give_up(job, error, JobState.CANCELLED)
        return True

    async def give_up(self, job: LiveJob, error: Error, state: JobState, *, is_node_done: bool = False) -> None:
        """End a job without a result.

        A node that is not known to be done with it is told to stop, and keeps the slot until it has.
        """
        node_id = job.node_id
        keep_ms = 0 if error.code in REFUSALS else self.policy.keep_ms
        if not await self.moves.end(job, None, state, error, keep_ms=keep_ms, release=is_node_done):
            return
        if node_id is not None and is_node_done:
            self.view.give_back(node_id)
        elif node_id is not None:
            self.tell_to_stop(node_id, job, error.code)
        log.warning("job ended without a result", code=error.code, state=state, **ids(job))
        await self.conclude(job, state, error)

    async def conclude(self, job: LiveJob, state: JobState, terminal: Terminal) -> None:
        """A job has ended: keep the books, and tell its session."""
        request = job.request
        self.forget(job, state)
        due_ms = await self.router.deliver(request.session_id, job.id, request.utterance_index, terminal)
        self.watch_results(request.session_id, due_ms)

    async def deliver_error(self, request: JobRequest, error: Error) -> None:
        """Tell the session of a request that it failed."""
        due_ms = await self.router.deliver_error(request.session_id, request.utterance_index, error)
        self.watch_results(request.session_id, due_ms)

    def note_progress(self, job: LiveJob) -> None:
        """A job has come further at its node; the store is told soon, if that is not over by then."""
        self.progress[job.id] = job
        self.has_progress.set()

    def watch_results(self, session_id: SessionId, due_ms: int | None) -> None:
        """Have the results of a session looked at when one has waited long enough."""
        if due_ms is not None:
            self.alarms.set(due_ms, session_id)

    def tell_to_stop(self, node_id: NodeId, job: LiveJob, reason: str) -> None:
        """Ask a node to stop working on a job; best effort."""
        if self.policy.sends_cancel:
            cancel = NodeJobCancel(job_id=job.id, trace_id=job.request.trace_id, reason=reason)
            self.router.tell_node(node_id, cancel)

    def drop(self, job: LiveJob) -> None:
        """Another instance sees to the job, or it has ended there: it is none of ours any more."""
        self.waiting.remove(job.id)
        self.progress.pop(job.id, None)
        self.jobs.end(job, job.state)

    def forget(self, job: LiveJob, state: JobState) -> None:
        """A job ended: keep the books."""
        self.progress.pop(job.id, None)
        if self.waiting:
            self.waiting.remove(job.id)
        self.jobs.end(job, state)
        now_ms = self.clock.now_ms()
        self.metrics.jobs[state] += 1
        self.metrics.job_duration_seconds.observe((now_ms - job.request.accepted_ms) / 1000)
        if state is JobState.FINISHED:
            self.answers.count_service(job.request.need, now_ms)
            self.demands.end(job, now_ms)

    def watch(self, job: LiveJob) -> None:
        """Set the alarm for when the job must be looked at again."""
        due_ms = job.next_due_ms(self.policy)
        if job.due_ms is None or due_ms < job.due_ms:
            job.due_ms = due_ms
            self.alarms.set(due_ms, job.id)

    def _admit(self, request: JobRequest, now_ms: int) -> tuple[Error | None, tuple[Candidate, ...]]:
        """Whether a request may become a job, and which nodes are worth trying for it."""
        if self.is_draining:
            text = "this instance is shutting down; connect again"
            return self.answers.error(request, ErrorCode.SCHEDULER_DRAINING, text, is_retryable=True), ()
        if request.deadline_ms is not None and request.deadline_ms <= now_ms:
            text = "the deadline has passed already"
            return self.answers.error(request, ErrorCode.DEADLINE_EXCEEDED, text, is_retryable=False), ()
        ranking = self.rankings.first(request, now_ms)
        if isinstance(ranking, Ranking):
            return None, ranking.candidates
        if not ranking.is_worth_waiting or self.policy.waiting_ms == 0:
            return self.answers.no_node(request, ranking), ()
        if self.waiting.is_full:
            return self.answers.queue_full(request), ()
        return None, ()

    def _begin(self, request: JobRequest) -> LiveJob:
        job = LiveJob(request)
        self.jobs.add(job)
        self.router.begin(request.session_id, request.job_id, request.utterance_index)
        return job

    async def _hand_over(self, job: LiveJob, reserved: Reserved, asked_ms: int) -> None:
        now_ms = self.clock.now_ms()
        if reserved.tried:
            self.view.correct(reserved.tried)
        self.view.take(reserved.node_id, reserved.used)
        self.jobs.place(job, reserved.node_id, reserved.attempt)
        job.given_ms = now_ms
        if now_ms - asked_ms > self.policy.lease_ms // 2:
            # This process was held up for so long that the slot may soon be another's.
            await self.fail_over(job, FailoverReason.UNREACHABLE, release=True)
            return
        if not self.router.assign(reserved.node_id, make_assignment(job.request, reserved.attempt)):
            await self.fail_over(job, FailoverReason.UNREACHABLE, release=True)
            return
        job.state = JobState.DISPATCHED
        self.note_progress(job)
        spent_ms = now_ms - job.request.accepted_ms
        self.metrics.dispatch_seconds.observe(spent_ms / 1000)
        if spent_ms >= self.policy.slow_ms and not job.wait_until_ms:
            log.warning("slow path", spent_ms=spent_ms, **ids(job))
        self.rankings.served(job.request.session_id, reserved.node_id, now_ms)
        self.demands.begin(job, now_ms)
        self.watch(job)
        self.router.hint(job.request, UiEventKind.DISPATCHED, now_ms)

    def _wait(self, job: LiveJob, now_ms: int) -> None:
        job.wait_until_ms = now_ms + self.policy.waiting_ms
        if not job.attempt:
            self.router.hint(job.request, UiEventKind.INPUT_ENDED, now_ms)
        self._wait_on(job)

    def _wait_on(self, job: LiveJob) -> None:
        job.state = JobState.CREATED
        if not job.wait_until_ms:
            job.wait_until_ms = self.clock.now_ms() + self.policy.waiting_ms
        request = job.request
        deadline_ms = min(job.wait_until_ms, request.deadline_ms or job.wait_until_ms)
        self.waiting.put(job.id, request.need, priority=request.priority, deadline_ms=deadline_ms)
        self.is_hungry.set()
        self.watch(job)
        log.debug("job waits for a node", waiting=len(self.waiting), **ids(job))

    async def _not_waiting(self, job: LiveJob, stale: Stale) -> None:
        """The store does not know a job as waiting: perhaps it has lost it, or somebody else sees to it."""
        if self.jobs.get(job.id) is not job or job.node_id is not None:
            return
        if stale.state in ENDED:
            self.drop(job)
        elif await self.moves.reconcile(job, job.attempt, stale) and job.node_id is None:
            self._wait_on(job)

    async def _known(self, request: JobRequest) -> AlreadyKnown | None:
        job = await self.store.read_job(request.job_id)
        return None if job is None else await self._already(job)

    async def _already(self, job: Job) -> AlreadyKnown:
        if job.state in ENDED:
            return AlreadyKnown(job.job_id, job.state, job.terminal)
        if (orphan := await self.moves.claim(job)) is not None:
            await self.adopt(orphan)
        # It is told to its session when it ends, by whoever sees to it.
        return AlreadyKnown(job.job_id, job.state, None)

    async def _cancel_elsewhere(self, session_id: SessionId, job_id: JobId) -> bool:
        job = await self.store.read_job(job_id)
        if job is None or job.state in ENDED or job.request is None or job.request.session_id != session_id:
            return False
        if job.owner == self.router.me:
            return False
        self.router.outbox.post(job.owner, Withdraw(session_id, job_id))
        return True

    def _refuse(self, error: Error, request: JobRequest) -> Refused:
        log.warning("request refused", code=error.code, why=error.message, **names(request))
        return Refused(error)

    def _has_tried(self, job_id: JobId, node_id: NodeId) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and node_id in job.tried
