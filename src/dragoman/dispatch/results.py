"""What becomes of what a node says about a job? Only the current attempt at the current node counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from dragoman.clock import Clock
from dragoman.cluster.membership import Membership
from dragoman.core.capability import Need
from dragoman.core.ids import InstanceId, JobId, NodeId
from dragoman.core.lifecycle import ENDED, SOURCES, JobState
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.live_jobs import LiveJob
from dragoman.dispatch.outcomes import FailoverReason
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.letters import NodeSaid
from dragoman.protocol.node_messages import JobAck, JobFailure, JobResult, JobStarted, NodeAsrPartial
from dragoman.protocol.session_messages import SessionAsrPartial, TranslationResult, UiEventKind
from dragoman.routing.mailbox import Assignment
from dragoman.store.interface import StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("results")

_MOVABLE: Final[dict[str, FailoverReason]] = {
    ErrorCode.MODEL_NOT_AVAILABLE: FailoverReason.MODEL_UNAVAILABLE,
    ErrorCode.MODEL_LOAD_FAILED: FailoverReason.MODEL_UNAVAILABLE,
    ErrorCode.MODEL_CORRUPTED: FailoverReason.MODEL_UNAVAILABLE,
    ErrorCode.MODEL_VERIFY_FAILED: FailoverReason.MODEL_UNAVAILABLE,
    ErrorCode.NODE_OVERLOADED: FailoverReason.NODE_REFUSED,
    ErrorCode.NODE_UNAVAILABLE: FailoverReason.NODE_REFUSED,
    ErrorCode.NO_GPU_AVAILABLE: FailoverReason.NODE_REFUSED,
    ErrorCode.JOB_CANCELLED: FailoverReason.NODE_REFUSED,
}
"""Failures that are the node's and not the job's: another node may do better."""

_TRANSIENT: Final[set[str]] = {
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.NMT_TIMEOUT,
    ErrorCode.TTS_TIMEOUT,
    ErrorCode.JOB_TIMEOUT,
}
"""Failures that may not come again, should the client ask anew."""

_MESSAGE_LENGTH_MAX: Final = 1000
_HELD_MAX: Final = 10_000
"""Results kept while the store is down: as many as jobs may wait."""


class Results:
    """From what nodes say to what sessions hear."""

    def __init__(self, dispatcher: Dispatcher, membership: Membership, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._membership = membership
        self._clock = clock
        self._store = dispatcher.store
        self._router = dispatcher.router
        self._metrics = dispatcher.metrics
        self._held: deque[tuple[NodeId, JobResult]] = deque()
        self.share: Callable[[NodeId], bool] = _keep
        """Whether a slot that has become free here is the turn of a job that waits on another instance."""
        self.on_released: Callable[[NodeId], None] = _ignore
        """Called when a job of this instance has given a slot back."""

    async def heard(self, node_id: NodeId, message: JobAck | JobStarted | NodeAsrPartial | JobResult) -> None:
        """A node connected here says something of a job: it is for the instance that sees to that."""
        job_id = JobId(message.job_id)
        attempt = None if isinstance(message, NodeAsrPartial) else message.attempt_id
        assignment = self._assignment(node_id, job_id, attempt)
        if assignment is None:
            if isinstance(message, JobResult):
                await self.take(node_id, message)
            return
        if isinstance(message, JobResult):
            del self._router.nodes[node_id].assignments[job_id]
        if assignment.owner in self._router.peers:
            # Its slot is free when that instance has taken the result, which it tells if jobs wait here.
            await self._pass_on(node_id, assignment.owner, message)
        else:
            await self.take(node_id, message)
            if isinstance(message, JobResult):
                await self.has_room(node_id)
        if isinstance(message, JobResult):
            self._dispatcher.freed.add(node_id)

    async def has_room(self, node_id: NodeId) -> None:
        """A node connected here has a free slot: it is for a job that waits here, or the turn of another instance."""
        if self._dispatcher.waiting and not self.share(node_id):
            await self._dispatcher.serve_waiting(node_id)

    async def take(self, node_id: NodeId, message: JobAck | JobStarted | NodeAsrPartial | JobResult) -> None:
        """A node, wherever it is connected, says something of a job that this instance sees to, or saw to."""
        match message:
            case JobResult():
                try:
                    await self._accept(node_id, message)
                except StoreDownError:
                    self._hold(node_id, message)
                else:
                    self.on_released(node_id)
            case JobAck() | JobStarted():
                to = JobState.RUNNING if isinstance(message, JobStarted) else JobState.ACCEPTED
                self._advance(node_id, JobId(message.job_id), message.attempt_id, to)
            case NodeAsrPartial():
                self._recognised(node_id, message)

    async def take_held(self) -> None:
        """Take the results that came while the store was down."""
        held, self._held = self._held, deque()
        for node_id, result in held:
            await self.take(node_id, result)

    # --- how

    def _hold(self, node_id: NodeId, result: JobResult) -> None:
        """The end of a job cannot be written down now: keep it until it can."""
        if len(self._held) >= _HELD_MAX:
            self._metrics.late_results.inc()
            log.error("too many results wait for the store, one was dropped", job_id=result.job_id)
            return
        self._held.append((node_id, result))

    def _recognised(self, node_id: NodeId, message: NodeAsrPartial) -> None:
        """The node has recognised something: it works on the job, and its session may want to see it."""
        live = self._dispatcher.jobs.get(JobId(message.job_id))
        if live is None or live.node_id != node_id:
            return
        self._advance(node_id, live.id, live.attempt, JobState.RUNNING)
        request = live.request
        self._router.tell_session(
            request.session_id,
            SessionAsrPartial(
                session_id=request.session_id,
                utterance_index=request.utterance_index,
                job_id=live.id,
                text=message.text,
                is_final=message.is_final,
                trace_id=request.trace_id,
            ),
        )

    async def _accept(self, node_id: NodeId, result: JobResult) -> None:
        """The node is done with the job: its result goes to the session, or another node has to try."""
        live = self._dispatcher.jobs.get(JobId(result.job_id))
        if live is None:
            await self._not_ours(node_id, JobId(result.job_id), result)
        elif live.attempt != result.attempt_id or live.node_id != node_id:
            await self._late(node_id, JobId(result.job_id), result.attempt_id)
        elif result.success:
            await self._finish(node_id, live, result)
        else:
            await self._fail(node_id, live, result.error or UNEXPLAINED)

    async def _not_ours(self, node_id: NodeId, job_id: JobId, result: JobResult) -> None:
        """A result of a job that this instance does not see to.

        The node may have got it on another connection, from an instance that is gone. Whoever sees to the job knows
        whether it counts.
        """
        job = await self._store.read_job(job_id)
        is_current = job is not None and (job.attempt, job.node_id) == (result.attempt_id, node_id)
        if job is None or not is_current or job.state in ENDED or job.owner == self._router.me:
            await self._late(node_id, job_id, result.attempt_id)
        else:
            await self._pass_on(node_id, job.owner, result)

    async def _pass_on(
        self, node_id: NodeId, owner: InstanceId, message: JobAck | JobStarted | NodeAsrPartial | JobResult
    ) -> None:
        if isinstance(message, JobResult):
            self._dispatcher.view.give_back(node_id)
            failure = None if message.success else message.error or UNEXPLAINED
            if failure is None:
                self._membership.job_ended(node_id, is_good=True)
            elif failure.code != ErrorCode.JOB_CANCELLED:
                self._blame(node_id, None, failure)
        self._router.outbox.post(owner, NodeSaid(node_id, message))

    async def _finish(self, node_id: NodeId, live: LiveJob, result: JobResult) -> None:
        dispatcher, request = self._dispatcher, live.request
        attempt, keep_ms = live.attempt, self._dispatcher.policy.keep_ms
        terminal = _terminal(result, live, self._clock.now_ms())
        if not await dispatcher.moves.end(live, node_id, JobState.FINISHED, terminal, keep_ms=keep_ms, release=True):
            await self._late(node_id, live.id, attempt)
            return
        dispatcher.view.give_back(node_id)
        dispatcher.forget(live, JobState.FINISHED)
        self._membership.job_ended(node_id, is_good=True)
        due_ms = await self._router.deliver_result(request.session_id, live.id, request.utterance_index, terminal)
        dispatcher.watch_results(request.session_id, due_ms)
        log.debug("job finished", node_id=node_id, job_id=live.id, attempt=attempt)

    async def _fail(self, node_id: NodeId, live: LiveJob, failure: JobFailure) -> None:
        reason = _MOVABLE.get(failure.code)
        self._blame(node_id, live.request.need, failure)
        if reason is not None:
            await self._dispatcher.fail_over(live, reason, release=True)
            return
        error = self._dispatcher.answers.error(
            live.request,
            failure.code or ErrorCode.INTERNAL_ERROR,
            failure.message[:_MESSAGE_LENGTH_MAX],
            is_retryable=failure.code in _TRANSIENT,
            node_id=node_id,
        )
        await self._dispatcher.give_up(live, error, JobState.FAILED, is_node_done=True)

    def _blame(self, node_id: NodeId, need: Need | None, failure: JobFailure) -> None:
        """A job failed at a node: what that says of the node."""
        match _MOVABLE.get(failure.code):
            case FailoverReason.NODE_REFUSED:
                self._membership.is_full(node_id)
            case FailoverReason.MODEL_UNAVAILABLE:
                self._membership.mark_unavailable(node_id, need, failure.details or {})
            case _ if need is None or node_id in self._router.nodes:
                self._membership.job_ended(node_id, is_good=False)
            case _:
                pass

    async def _late(self, node_id: NodeId, job_id: JobId, attempt: int) -> None:
        """The attempt is over; what remains is that the node is done with it, and so its slot is free."""
        self._metrics.late_results.inc()
        log.info("late result dropped", node_id=node_id, job_id=job_id, attempt=attempt)
        await self._membership.release(node_id, job_id, attempt)

    def _advance(self, node_id: NodeId, job_id: JobId, attempt: int, to: JobState) -> None:
        live = self._dispatcher.jobs.get(job_id)
        if live is None or live.attempt != attempt or live.node_id != node_id or live.state not in SOURCES[to]:
            return
        is_news = live.state in _NOT_TAKEN
        live.state = to
        self._dispatcher.note_progress(live)
        if is_news:
            self._router.hint(live.request, UiEventKind.NODE_ACCEPTED, self._clock.now_ms())

    def _assignment(self, node_id: NodeId, job_id: JobId, attempt: int | None) -> Assignment | None:
        mailbox = self._router.nodes.get(node_id)
        assignment = None if mailbox is None else mailbox.assignments.get(job_id)
        if assignment is None or (attempt is not None and assignment.attempt != attempt):
            return None
        return assignment


_NOT_TAKEN: Final = frozenset({JobState.RESERVED, JobState.DISPATCHED})

UNEXPLAINED: Final = JobFailure(code=ErrorCode.INTERNAL_ERROR, message="the node failed and gave no reason")


def _ignore(node_id: NodeId) -> None:
    """Nobody wants to know."""


def _keep(node_id: NodeId) -> bool:  # noqa: ARG001
    return False


def _terminal(result: JobResult, live: LiveJob, now_ms: int) -> TranslationResult:
    request = live.request
    return TranslationResult(
        session_id=request.session_id,
        utterance_index=request.utterance_index,
        job_id=live.id,
        text_asr=result.text_asr or "",
        text_translated=result.text_translated or "",
        tts_audio=result.tts_audio or b"",
        tts_format=result.tts_format or "pcm16",
        trace_id=request.trace_id,
        extra=result.extra,
        group_id=result.group_id,
        part_index=result.part_index,
        service_timings=result.service_timings,
        scheduler_sent_at_ms=now_ms,
        asr_quality_level=result.asr_quality_level,
        reason_codes=result.reason_codes,
        quality_score=result.quality_score,
        rerun_count=result.rerun_count,
        segments_meta=result.segments_meta,
    )
