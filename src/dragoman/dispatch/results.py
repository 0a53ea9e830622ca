"""What becomes of what a node says about a job? Only the current attempt at the current node counts."""

from __future__ import annotations

from typing import Final

from dragoman.clock import Clock
from dragoman.cluster.membership import Membership
from dragoman.core.ids import JobId, NodeId
from dragoman.core.lifecycle import JobState
from dragoman.dispatch.dispatcher import Dispatcher, FailoverReason
from dragoman.dispatch.live_jobs import LiveJob
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.node_messages import JobAck, JobFailure, JobResult, JobStarted, NodeAsrPartial
from dragoman.protocol.session_messages import SessionAsrPartial, TranslationResult, UiEventKind
from dragoman.routing.mailbox import Assignment
from dragoman.store.interface import Stale
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


class Results:
    """From what nodes say to what sessions hear."""

    def __init__(self, dispatcher: Dispatcher, membership: Membership, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._membership = membership
        self._clock = clock
        self._store = dispatcher.store
        self._router = dispatcher.router
        self._metrics = dispatcher.metrics

    async def acknowledge(self, node_id: NodeId, message: JobAck | JobStarted) -> None:
        """The node has the job, or works on it."""
        job_id = JobId(message.job_id)
        if self._assignment(node_id, job_id, message.attempt_id) is None:
            return
        to = JobState.RUNNING if isinstance(message, JobStarted) else JobState.ACCEPTED
        await self._advance(node_id, job_id, message.attempt_id, to)

    async def recognised(self, node_id: NodeId, message: NodeAsrPartial) -> None:
        """The node has recognised something: it works on the job, and its session may want to see it."""
        job_id = JobId(message.job_id)
        assignment = self._assignment(node_id, job_id, None)
        if assignment is None:
            return
        live = self._dispatcher.jobs.get(job_id)
        if live is not None and live.state is not JobState.RUNNING:
            await self._advance(node_id, job_id, assignment.attempt, JobState.RUNNING)
        if live is None or live.attempt != assignment.attempt:
            return
        self._router.tell_session(
            assignment.session_id,
            SessionAsrPartial(
                session_id=assignment.session_id,
                utterance_index=assignment.utterance_index,
                job_id=job_id,
                text=message.text,
                is_final=message.is_final,
                trace_id=assignment.trace_id,
            ),
        )

    async def accept(self, node_id: NodeId, result: JobResult) -> None:
        """The node is done with the job: its result goes to the session, or another node has to try."""
        job_id = JobId(result.job_id)
        assignment = self._assignment(node_id, job_id, result.attempt_id)
        if assignment is None:
            self._metrics.late_results.inc()
            return
        del self._router.nodes[node_id].assignments[job_id]
        live = self._dispatcher.jobs.get(job_id)
        if live is None or live.attempt != assignment.attempt or live.node_id != node_id:
            await self._late(node_id, job_id, assignment)
        elif result.success:
            await self._finish(node_id, live, assignment, result)
        else:
            await self._fail(node_id, live, result.error or _UNEXPLAINED)
        if self._dispatcher.waiting:
            await self._dispatcher.serve_waiting(node_id)

    async def _finish(self, node_id: NodeId, live: LiveJob, assignment: Assignment, result: JobResult) -> None:
        dispatcher = self._dispatcher
        terminal = _terminal(result, assignment, live.id, self._clock.now_ms())
        moved = await self._store.end_job(
            live.id,
            assignment.attempt,
            node_id,
            JobState.FINISHED,
            terminal,
            release=True,
            keep_ms=dispatcher.policy.keep_ms,
        )
        if isinstance(moved, Stale):
            await self._late(node_id, live.id, assignment)
            return
        dispatcher.view.give_back(node_id)
        dispatcher.forget(live, JobState.FINISHED)
        self._membership.job_ended(node_id, is_good=True)
        due_ms = await self._router.deliver_result(assignment.session_id, live.id, assignment.utterance_index, terminal)
        dispatcher.watch_results(assignment.session_id, due_ms)
        log.debug("job finished", node_id=node_id, job_id=live.id, attempt=assignment.attempt)

    async def _fail(self, node_id: NodeId, live: LiveJob, failure: JobFailure) -> None:
        reason = _MOVABLE.get(failure.code)
        if reason is FailoverReason.NODE_REFUSED:
            self._membership.is_full(node_id)
        if reason is FailoverReason.MODEL_UNAVAILABLE:
            self._membership.mark_unavailable(node_id, live.request.need, failure.details or {})
        if reason is not None:
            await self._dispatcher.fail_over(live, reason, release=True)
            return
        self._membership.job_ended(node_id, is_good=False)
        error = self._dispatcher.answers.error(
            live.request,
            failure.code or ErrorCode.INTERNAL_ERROR,
            failure.message[:_MESSAGE_LENGTH_MAX],
            is_retryable=failure.code in _TRANSIENT,
            node_id=node_id,
        )
        await self._dispatcher.give_up(live, error, JobState.FAILED, is_node_done=True)

    async def _late(self, node_id: NodeId, job_id: JobId, assignment: Assignment) -> None:
        """The attempt is over; what remains is that the node is done with it, and so its slot is free."""
        self._metrics.late_results.inc()
        log.info("late result dropped", node_id=node_id, job_id=job_id, attempt=assignment.attempt)
        await self._membership.release(node_id, job_id, assignment.attempt)

    async def _advance(self, node_id: NodeId, job_id: JobId, attempt: int, to: JobState) -> None:
        moved = await self._store.advance_job(job_id, attempt, node_id, to)
        live = self._dispatcher.jobs.get(job_id)
        if isinstance(moved, Stale) or live is None or live.attempt != attempt:
            return
        is_news = live.state is JobState.DISPATCHED
        live.state = to
        if is_news:
            self._router.hint(live.request, UiEventKind.NODE_ACCEPTED, self._clock.now_ms())

    def _assignment(self, node_id: NodeId, job_id: JobId, attempt: int | None) -> Assignment | None:
        mailbox = self._router.nodes.get(node_id)
        assignment = None if mailbox is None else mailbox.assignments.get(job_id)
        if assignment is None or (attempt is not None and assignment.attempt != attempt):
            return None
        return assignment


_UNEXPLAINED: Final = JobFailure(code=ErrorCode.INTERNAL_ERROR, message="the node failed and gave no reason")


def _terminal(result: JobResult, assignment: Assignment, job_id: JobId, now_ms: int) -> TranslationResult:
    return TranslationResult(
        session_id=assignment.session_id,
        utterance_index=assignment.utterance_index,
        job_id=job_id,
        text_asr=result.text_asr or "",
        text_translated=result.text_translated or "",
        tts_audio=result.tts_audio or b"",
        tts_format=result.tts_format or "pcm16",
        trace_id=assignment.trace_id,
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
