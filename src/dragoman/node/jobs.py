"""Which jobs does the node run, and what does it answer to each order of the scheduler?"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from dragoman.node.calls import Calls
from dragoman.node.errors import ServiceError
from dragoman.node.outbox import Outbox
from dragoman.node.pipeline import Pipeline, Translation
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.node_messages import JobAck, JobAssign, JobFailure, JobResult, JobStarted, NodeAsrPartial
from dragoman.telemetry.logs import get_logger

_log = get_logger("node")

_RESULTS_REMEMBERED: Final = 64
"""A job that is assigned again after its end is answered from here: its result was lost with a connection."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    job: JobAssign
    node_id: str
    task: asyncio.Task[None]
    is_withdrawn: bool = False


class Jobs:
    """The jobs of one node: never more than its slots, never the same attempt twice."""

    def __init__(
        self, group: asyncio.TaskGroup, *, pipeline: Pipeline, calls: Calls, outbox: Outbox, slots: int
    ) -> None:
        self._group = group
        self._pipeline = pipeline
        self._calls = calls
        self._outbox = outbox
        self._slots = slots
        self._running: dict[str, _Running] = {}
        self._recent: OrderedDict[tuple[str, int], JobResult] = OrderedDict()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def running_ids(self) -> list[str]:
        """The ids of the jobs that run."""
        return list(self._running)

    @property
    def busy_count(self) -> int:
        """Slots in use, with those that a call holds which never came back."""
        return len(self._running) + self._calls.overdue_count

    async def idle(self) -> None:
        """Wait until no job runs."""
        await self._is_idle.wait()

    def assign(self, job: JobAssign, node_id: str) -> None:
        """Begin a job, or say why not. The same attempt again is acknowledged or answered again, and not run again."""
        known = self._running.get(job.job_id)
        if known is not None and known.job.attempt_id >= job.attempt_id:
            self._outbox.tell(_ack(known.job, known.node_id))
            return
        done = self._recent.get((job.job_id, job.attempt_id))
        if done is not None:
            self._outbox.keep(done)
            return
        if known is not None:
            # The scheduler gave up the older attempt: nobody waits for its result.
            self._drop(known)
        if self.busy_count >= self._slots:
            _log.warning("job_refused", job_id=job.job_id, reason="overloaded", busy=self.busy_count, slots=self._slots)
            message = f"all {self._slots} slots are in use"
            self._outbox.keep(_failure(job, node_id, JobFailure(code=ErrorCode.NODE_OVERLOADED, message=message)))
            return
        self._outbox.tell(_ack(job, node_id))
        self._begin(job, node_id)

    def cancel(self, job_id: str) -> None:
        """Stop a job, and answer that it was stopped. One that does not run here is passed over."""
        running = self._running.get(job_id)
        if running is not None and not running.is_withdrawn:
            running.is_withdrawn = True
            running.task.cancel()

    def abandon(self) -> None:
        """Stop all jobs without an answer: the scheduler then gives them to others."""
        for running in tuple(self._running.values()):
            self._drop(running)

    def _begin(self, job: JobAssign, node_id: str) -> None:
        task = self._group.create_task(self._run(job, node_id), name=f"job {job.job_id}")
        self._running[job.job_id] = _Running(job=job, node_id=node_id, task=task)
        self._is_idle.clear()
        task.add_done_callback(lambda _: self._end(job))

    def _drop(self, running: _Running) -> None:
        del self._running[running.job.job_id]
        running.task.cancel()
        if not self._running:
            self._is_idle.set()

    def _end(self, job: JobAssign) -> None:
        """Free the slot. A cancelled task may never have begun, so it is here that a withdrawn job is answered."""
        running = self._running.get(job.job_id)
        if running is None or running.job is not job:
            return
        del self._running[job.job_id]
        if running.is_withdrawn and running.task.cancelled():
            failure = JobFailure(code=ErrorCode.JOB_CANCELLED, message="the job was withdrawn")
            self._answer(_failure(job, running.node_id, failure))
        if not self._running:
            self._is_idle.set()

    async def _run(self, job: JobAssign, node_id: str) -> None:
        begin = time.perf_counter()
        self._outbox.tell(
            JobStarted(
                job_id=job.job_id,
                attempt_id=job.attempt_id,
                node_id=node_id,
                session_id=job.session_id,
                trace_id=job.trace_id,
            )
        )
        outcome = await self._outcome(job, node_id)
        running = self._running.get(job.job_id)
        if running is None or running.job is not job:
            return
        self._answer(_result(job, node_id, outcome, round((time.perf_counter() - begin) * 1000, 1)))

    async def _outcome(self, job: JobAssign, node_id: str) -> Translation | JobFailure:
        try:
            return await self._pipeline.run(job, lambda text: self._tell_heard(job, node_id, text))
        except ServiceError as error:
            _log_cause(job, error)
            return JobFailure(code=error.code, message=error.message, details=error.details)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return JobFailure(code=ErrorCode.INTERNAL_ERROR, message="a service was cancelled from within")
        except Exception as error:  # noqa: BLE001 — one job must not end the node, whatever it holds
            _log.error("job_broke", job_id=job.job_id, error=type(error).__name__, where=_where(error))
            return JobFailure(code=ErrorCode.INTERNAL_ERROR, message=f"the node failed with {type(error).__name__}")

    def _answer(self, result: JobResult) -> None:
        code = result.error.code if result.error else None
        _log.info(
            "job_finished",
            job_id=result.job_id,
            attempt_id=result.attempt_id,
            error_code=code,
            total_ms=result.processing_time_ms,
        )
        self._recent[result.job_id, result.attempt_id] = result
        if len(self._recent) > _RESULTS_REMEMBERED:
            self._recent.popitem(last=False)
        self._outbox.keep(result)

    def _tell_heard(self, job: JobAssign, node_id: str, text: str) -> None:
        if not job.enable_streaming_asr or job.audio_format == "text":
            return
        self._outbox.tell(
            NodeAsrPartial(
                job_id=job.job_id,
                node_id=node_id,
                session_id=job.session_id,
                utterance_index=job.utterance_index,
                text=text,
                is_final=True,
                trace_id=job.trace_id,
            )
        )


def _log_cause(job: JobAssign, error: ServiceError) -> None:
    cause = error.__cause__
    if error.code == ErrorCode.INTERNAL_ERROR and cause is not None:
        _log.error("service_failed", job_id=job.job_id, error=type(cause).__name__, where=_where(cause))


def _where(error: BaseException) -> list[str]:
    """Where it failed. What the exception says is left out: it may quote the speaker."""
    return [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]


def _ack(job: JobAssign, node_id: str) -> JobAck:
    return JobAck(
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        node_id=node_id,
        session_id=job.session_id,
        trace_id=job.trace_id,
    )


def _result(job: JobAssign, node_id: str, outcome: Translation | JobFailure, total_ms: float) -> JobResult:
    if isinstance(outcome, JobFailure):
        return _failure(job, node_id, outcome, total_ms)
    return JobResult(
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        node_id=node_id,
        session_id=job.session_id,
        utterance_index=job.utterance_index,
        success=True,
        trace_id=job.trace_id,
        text_asr=outcome.text_asr,
        text_translated=outcome.text_translated,
        tts_audio=outcome.speech or None,
        tts_format=outcome.speech_format or None,
        extra=None if outcome.detected is None else {"detected_src_lang": outcome.detected},
        processing_time_ms=total_ms,
        service_timings={**outcome.timings, "total_ms": total_ms},
        node_completed_at_ms=time.time_ns() // 1_000_000,
        group_id=job.group_id,
        part_index=job.part_index,
    )


def _failure(job: JobAssign, node_id: str, failure: JobFailure, total_ms: float = 0.0) -> JobResult:
    return JobResult(
        job_id=job.job_id,
        attempt_id=job.attempt_id,
        node_id=node_id,
        session_id=job.session_id,
        utterance_index=job.utterance_index,
        success=False,
        trace_id=job.trace_id,
        error=failure,
        processing_time_ms=total_ms,
        node_completed_at_ms=time.time_ns() // 1_000_000,
        group_id=job.group_id,
        part_index=job.part_index,
    )
