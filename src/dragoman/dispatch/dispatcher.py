"""How does a request become a job at a node? The straight path: rank, reserve, hand over; or wait; or say why not."""

from __future__ import annotations

from enum import StrEnum
from random import Random
from typing import Any, TypeAlias

from msgspec import Struct

from dragoman.clock import Clock
from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import ENDED, JobState
from dragoman.core.node import NodeStatus
from dragoman.core.refusal import Refusal
from dragoman.core.selection import Ranking, SelectionPolicy, rank_nodes
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.alarms import Alarms
from dragoman.dispatch.answers import Answers
from dragoman.dispatch.live_jobs import DispatchPolicy, LiveJob, LiveJobs
from dragoman.protocol.assignment import make_assignment
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.node_messages import NodeJobCancel
from dragoman.protocol.session_messages import Terminal, UiEventKind
from dragoman.routing.router import Router
from dragoman.store.interface import AllFull, Job, Known, Reserved, Stale, Store
from dragoman.telemetry.logs import get_logger
from dragoman.telemetry.metrics import Metrics

log = get_logger("dispatch")


class FailoverReason(StrEnum):
    """Why an attempt is over before its result came."""

    ACK_TIMEOUT = "ack_timeout"
    JOB_TIMEOUT = "job_timeout"
    NODE_LOST = "node_lost"
    NODE_REFUSED = "node_refused"
    MODEL_UNAVAILABLE = "model_unavailable"
    LEASE_LAPSED = "lease_lapsed"
    UNREACHABLE = "unreachable"


_FAILURE_CODES = {
    FailoverReason.ACK_TIMEOUT: ErrorCode.JOB_TIMEOUT,
    FailoverReason.JOB_TIMEOUT: ErrorCode.JOB_TIMEOUT,
    FailoverReason.LEASE_LAPSED: ErrorCode.JOB_TIMEOUT,
    FailoverReason.NODE_LOST: ErrorCode.NODE_UNAVAILABLE,
    FailoverReason.UNREACHABLE: ErrorCode.NODE_UNAVAILABLE,
    FailoverReason.NODE_REFUSED: ErrorCode.NODE_OVERLOADED,
    FailoverReason.MODEL_UNAVAILABLE: ErrorCode.MODEL_NOT_AVAILABLE,
}


_REFUSALS = frozenset({ErrorCode.NO_AVAILABLE_NODE, ErrorCode.QUEUE_FULL, ErrorCode.SCHEDULER_DRAINING})


class Accepted(Struct, frozen=True):
    """There is a job for it: at a node, or waiting."""

    job_id: JobId
    state: JobState


class AlreadyKnown(Struct, frozen=True):
    """It was asked before, and this is what became of it so far."""

    job_id: JobId
    state: JobState
    terminal: Terminal | None


class Refused(Struct, frozen=True):
    """No job was made of it: asking again may go well."""

    error: Error


Submission: TypeAlias = Accepted | AlreadyKnown | Refused


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
        self.selection = selection
        self.policy = policy
        self.waiting = waiting
        self.alarms = alarms
        self.clock = clock
        self.rng = rng
        self.metrics = metrics
        self.jobs = LiveJobs()
        self.is_draining = False
        self.answers = Answers(view, waiting, clock, metrics)
        self._last_nodes: dict[SessionId, tuple[int, NodeId]] = {}

    async def submit(self, request: JobRequest) -> Submission:
        """Take an utterance: it is given to a node, waits with a known deadline, or is refused with the reasons."""
        live = self.jobs.get(request.job_id)
        if live is not None:
            return AlreadyKnown(live.id, live.state, None)
        now_ms = self.clock.now_ms()
        refused, ranking = self._admit(request, now_ms)
        if refused is not None:
            return await self._known(request.job_id) or self._refuse(refused, request)
        match await self.store.open_job(request, ranking, self.policy.lease_ms):
            case Known(job):
                return _already(job)
            case Reserved() as reserved:
                live = self._begin(request)
                await self._hand_over(live, reserved)
            case AllFull(tried):
                self._correct(tried)
                live = self._begin(request)
                self._wait(live, now_ms)
        return Accepted(live.id, live.state)

    async def find_node(self, job: LiveJob) -> None:
        """Look for a node for another attempt; without one the job waits, or is given up."""
        now_ms = self.clock.now_ms()
        ranking = self._rank(job, now_ms)
        if isinstance(ranking, Ranking):
            match await self.store.reserve_slot(job.id, job.attempt, ranking.candidates, self.policy.lease_ms):
                case Reserved() as reserved:
                    await self._hand_over(job, reserved)
                    return
                case AllFull(tried):
                    self._correct(tried)
                case Stale():
                    return
        elif not ranking.is_worth_waiting:
            await self.give_up(job, self.answers.no_node(job.request, ranking), JobState.FAILED)
            return
        if self.policy.waiting_ms == 0 or self.waiting.is_full:
            await self.give_up(job, self.answers.queue_full(job.request), JobState.FAILED)
            return
        self._wait(job, now_ms)

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
            candidate = Candidate(node_id, entry.node.slots)
            match await self.store.reserve_slot(job.id, job.attempt, (candidate,), self.policy.lease_ms):
                case Reserved() as reserved:
                    await self._hand_over(job, reserved)
                case AllFull(tried):
                    self._correct(tried)
                    self._wait_on(job)
                    return
                case Stale():
                    continue

    async def fail_over(self, job: LiveJob, reason: FailoverReason, *, release: bool) -> None:
        """The attempt failed: look for another node, or give the job up when it has had all its attempts.

        `release` tells that the node is surely not at work on it; otherwise it keeps the slot until it says so.
        """
        node_id = job.node_id
        if node_id is None or isinstance(await self.store.requeue_job(job.id, job.attempt, release=release), Stale):
            return
        if release:
            self.view.give_back(node_id)
        else:
            self.tell_to_stop(node_id, job, reason)
        self.jobs.displace(job)
        job.tried = (*job.tried, node_id)
        self.metrics.reassignments.labels(reason).inc()
        log.warning("attempt failed", reason=reason, **ids(job) | {"node_id": node_id})
        if job.attempt > self.policy.failovers_max:
            text = f"{job.attempt} nodes failed at it, the last one by {reason.replace('_', ' ')}"
            error = self.answers.error(job.request, _FAILURE_CODES[reason], text, is_retryable=True)
            await self.give_up(job, error, JobState.FAILED)
            return
        await self.find_node(job)

    async def cancel(self, session_id: SessionId, job_id: JobId) -> bool:
        """Withdraw a job for its session; False when the session has no such job under way."""
        job = self.jobs.get(job_id)
        if job is None or job.request.session_id != session_id:
            return False
        error = self.answers.error(job.request, ErrorCode.JOB_CANCELLED, "withdrawn by the client", is_retryable=False)
        await self.give_up(job, error, JobState.CANCELLED)
        return True

    async def give_up(self, job: LiveJob, error: Error, state: JobState, *, is_node_done: bool = False) -> None:
        """End a job without a result.

        A node that is not known to be done with it is told to stop, and keeps the slot until it has.
        """
        node_id = job.node_id
        # What no node took was refused, not done: the same request may be asked again.
        keep_ms = 0 if error.code in _REFUSALS else self.policy.keep_ms
        moved = await self.store.end_job(job.id, job.attempt, None, state, error, release=is_node_done, keep_ms=keep_ms)
        if isinstance(moved, Stale):
            return
        if node_id is not None and is_node_done:
            self.view.give_back(node_id)
        elif node_id is not None:
            self.tell_to_stop(node_id, job, error.code)
        log.warning("job ended without a result", code=error.code, state=state, **ids(job))
        self.forget(job, state)
        await self.deliver_error(job.request, error)

    async def deliver_error(self, request: JobRequest, error: Error) -> None:
        """Tell the session of a request that it failed."""
        due_ms = await self.router.deliver_error(request.session_id, request.utterance_index, error)
        self.watch_results(request.session_id, due_ms)

    def watch_results(self, session_id: SessionId, due_ms: int | None) -> None:
        """Have the results of a session looked at when one has waited long enough."""
        if due_ms is not None:
            self.alarms.set(due_ms, session_id)

    def tell_to_stop(self, node_id: NodeId, job: LiveJob, reason: str) -> None:
        """Ask a node to stop working on a job; best effort."""
        if self.policy.sends_cancel:
            cancel = NodeJobCancel(job_id=job.id, trace_id=job.request.trace_id, reason=reason)
            self.router.tell_node(node_id, cancel)

    def forget(self, job: LiveJob, state: JobState) -> None:
        """A job ended: keep the books."""
        if self.waiting:
            self.waiting.remove(job.id)
        self.jobs.end(job, state)
        now_ms = self.clock.now_ms()
        self.metrics.jobs[state] += 1
        self.metrics.job_duration_seconds.observe((now_ms - job.request.accepted_ms) / 1000)
        if state is JobState.FINISHED:
            self.answers.count_service(job.request.need, now_ms)

    def forget_session(self, session_id: SessionId) -> None:
        """The session is over."""
        self._last_nodes.pop(session_id, None)

    def watch(self, job: LiveJob) -> None:
        """Set the alarm for when the job must be looked at again."""
        due_ms = job.next_due_ms(self.policy)
        if job.due_ms is None or due_ms < job.due_ms:
            job.due_ms = due_ms
            self.alarms.set(due_ms, job.id)

    # --- steps

    def _admit(self, request: JobRequest, now_ms: int) -> tuple[Error | None, tuple[Candidate, ...]]:
        """Whether a request may become a job, and which nodes are worth trying for it."""
        if self.is_draining:
            text = "this instance is shutting down; connect again"
            return self.answers.error(request, ErrorCode.SCHEDULER_DRAINING, text, is_retryable=True), ()
        if request.deadline_ms is not None and request.deadline_ms <= now_ms:
            text = "the deadline has passed already"
            return self.answers.error(request, ErrorCode.DEADLINE_EXCEEDED, text, is_retryable=False), ()
        ranking = self._first_ranking(request, now_ms)
        if isinstance(ranking, Ranking):
            return None, ranking.candidates
        if not ranking.is_worth_waiting or self.policy.waiting_ms == 0:
            return self.answers.no_node(request, ranking), ()
        if self.waiting.is_full:
            return self.answers.queue_full(request), ()
        return None, ()

    def _first_ranking(self, request: JobRequest, now_ms: int) -> Ranking | Refusal:
        return rank_nodes(
            request.need,
            self.view,
            self.selection,
            self.rng,
            now_ms=now_ms,
            spread_from=self._spread_from(request.session_id, now_ms),
        )

    def _rank(self, job: LiveJob, now_ms: int) -> Ranking | Refusal:
        need = job.request.need
        ranking = rank_nodes(need, self.view, self.selection, self.rng, now_ms=now_ms, tried=job.tried)
        if isinstance(ranking, Ranking) or ranking.is_worth_waiting:
            return ranking
        # Every node that could do it has failed once: better one of them again than none.
        job.tried = ()
        return rank_nodes(need, self.view, self.selection, self.rng, now_ms=now_ms)

    def _begin(self, request: JobRequest) -> LiveJob:
        job = LiveJob(request)
        self.jobs.add(job)
        self.router.begin(request.session_id, request.utterance_index)
        return job

    async def _hand_over(self, job: LiveJob, reserved: Reserved) -> None:
        now_ms = self.clock.now_ms()
        if reserved.tried:
            self._correct(reserved.tried)
        self.view.take(reserved.node_id, reserved.used)
        self.jobs.place(job, reserved.node_id, reserved.attempt)
        job.given_ms = now_ms
        moved = await self.store.advance_job(job.id, job.attempt, reserved.node_id, JobState.DISPATCHED)
        if isinstance(moved, Stale):
            await self.store.release_slot(reserved.node_id, job.id, reserved.attempt)
            self.view.give_back(reserved.node_id)
            return
        if job.state is JobState.RESERVED:
            job.state = JobState.DISPATCHED
        if not self.router.assign(reserved.node_id, make_assignment(job.request, reserved.attempt)):
            await self.fail_over(job, FailoverReason.UNREACHABLE, release=True)
            return
        spent_ms = now_ms - job.request.accepted_ms
        self.metrics.dispatch_seconds.observe(spent_ms / 1000)
        if spent_ms >= self.policy.slow_ms and not job.wait_until_ms:
            log.warning("slow path", spent_ms=spent_ms, **ids(job))
        if self.policy.spread_ms:
            self._last_nodes[job.request.session_id] = (now_ms, reserved.node_id)
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
        self.watch(job)
        log.debug("job waits for a node", waiting=len(self.waiting), **ids(job))

    async def _known(self, job_id: JobId) -> AlreadyKnown | None:
        job = await self.store.read_job(job_id)
        return None if job is None else _already(job)

    def _refuse(self, error: Error, request: JobRequest) -> Refused:
        log.warning(
            "request refused",
            code=error.code,
            why=error.message,
            session_id=request.session_id,
            trace_id=request.trace_id,
            job_id=request.job_id,
        )
        return Refused(error)

    def _spread_from(self, session_id: SessionId, now_ms: int) -> NodeId | None:
        last = self._last_nodes.get(session_id)
        return last[1] if last is not None and now_ms - last[0] < self.policy.spread_ms else None

    def _has_tried(self, job_id: JobId, node_id: NodeId) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and node_id in job.tried

    def _correct(self, counts: tuple[tuple[NodeId, int], ...]) -> None:
        for node_id, used in counts:
            self.view.set_used(node_id, used)


def ids(job: LiveJob) -> dict[str, Any]:
    """What names a job in a log line."""
    request = job.request
    return {
        "job_id": request.job_id,
        "session_id": request.session_id,
        "trace_id": request.trace_id,
        "node_id": job.node_id,
        "attempt": job.attempt,
    }


def _already(job: Job) -> AlreadyKnown:
    return AlreadyKnown(job.job_id, job.state, job.terminal if job.state in ENDED else None)
