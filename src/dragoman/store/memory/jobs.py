"""How are jobs and the slots of nodes remembered in one process? In dictionaries, by the store's rules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, JobId, NodeId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import ENDED, SOURCES, JobState
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult
from dragoman.store.interface import (
    AllFull,
    Hold,
    Job,
    Known,
    Moved,
    Placement,
    Release,
    Reserved,
    Restored,
    Slots,
    Stale,
)

_MOVED: Final = Moved()

_ENDED_JOB_BYTES: Final = 1024
"""What an ended job costs beside its texts and audio, roughly."""


@dataclass(slots=True)
class _Job:
    request: JobRequest | None
    owner: InstanceId
    state: JobState = JobState.CREATED
    attempt: int = 0
    node_id: NodeId | None = None
    terminal: Terminal | None = None
    forget_ms: int = 0


@dataclass(slots=True)
class _Hold:
    attempt: int
    lease_ms: int
    orphaned_ms: int | None = None
    """Since when the attempt is over while the node may still be at work on it."""


class MemoryJobs:
    """See Jobs."""

    def __init__(self, clock: Clock, *, retained_bytes_max: int) -> None:
        self._clock = clock
        self._retained_bytes_max = retained_bytes_max
        self._retained_bytes = 0
        self._jobs: dict[JobId, _Job] = {}
        self._ended: OrderedDict[JobId, None] = OrderedDict()
        """Ended jobs, the oldest first."""
        self._retained: OrderedDict[JobId, int] = OrderedDict()
        """Those of them that have their result still, with its size."""
        self._holds: dict[NodeId, dict[JobId, _Hold]] = {}

    # --- jobs and slots

    async def open_job(
        self, request: JobRequest, owner: InstanceId, ranking: Sequence[Candidate], lease_ms: int
    ) -> Known | Placement:
        """See Store."""
        known = self._find(request.job_id)
        if known is not None:
            return Known(self._snapshot(request.job_id, known))
        job = self._jobs[request.job_id] = _Job(request, owner)
        return self._reserve(job, request.job_id, ranking, lease_ms)

    async def reserve_slot(
        self, job_id: JobId, attempt: int, ranking: Sequence[Candidate], lease_ms: int
    ) -> Placement | Stale:
        """See Store."""
        job = self._find(job_id)
        if job is None or job.attempt != attempt or job.state not in SOURCES[JobState.RESERVED]:
            return _stale(job)
        return self._reserve(job, job_id, ranking, lease_ms)

    async def advance_job(self, job_id: JobId, attempt: int, node_id: NodeId, to: JobState) -> Moved | Stale:
        """See Store."""
        job = self._find(job_id)
        if job is None or job.attempt != attempt or job.node_id != node_id or job.state not in SOURCES[to]:
            return _stale(job)
        job.state = to
        return _MOVED

    async def requeue_job(self, job_id: JobId, attempt: int, *, release: bool) -> Moved | Stale:
        """See Store."""
        job = self._find(job_id)
        if job is None or job.attempt != attempt or job.state not in SOURCES[JobState.CREATED]:
            return _stale(job)
        self._leave_node(job, job_id, release=release)
        job.state = JobState.CREATED
        return _MOVED

    async def end_job(
        self,
        job_id: JobId,
        attempt: int,
        node_id: NodeId | None,
        to: JobState,
        terminal: Terminal,
        *,
        release: bool,
        keep_ms: int,
    ) -> Moved | Stale:
        """See Store."""
        job = self._find(job_id)
        if job is None or job.attempt != attempt or job.state not in SOURCES[to]:
            if release and node_id is not None:
                await self.release_slot(node_id, job_id, attempt)
            return _stale(job)
        if node_id is not None and job.node_id != node_id:
            if release:
                await self.release_slot(node_id, job_id, attempt)
            return _stale(job)
        self._leave_node(job, job_id, release=release)
        job.state = to
        job.terminal = terminal
        job.request = None
        job.forget_ms = self._clock.now_ms() + keep_ms
        self._retain(job_id, terminal)
        return _MOVED

    async def read_job(self, job_id: JobId) -> Job | None:
        """See Store."""
        job = self._find(job_id)
        return None if job is None else self._snapshot(job_id, job)

    async def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """See Store."""
        hold = self._holds.get(node_id, {}).get(job_id)
        if hold is None or hold.attempt != attempt:
            return Release.NOT_HELD
        self._drop_hold(node_id, job_id)
        return Release.RELEASED

    async def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_for_ms: int
    ) -> Slots:
        """See Store."""
        holds = self._holds.get(node_id)
        if not holds:
            return Slots(0)
        now_ms = self._clock.now_ms()
        until_ms = now_ms + lease_ms
        if running is None:
            listed = {job_id for job_id, hold in holds.items() if hold.orphaned_ms is None}
            over: list[JobId] = []
        else:
            listed = holds.keys() & set(running)
            over = [
                job_id
                for job_id, hold in holds.items()
                if job_id not in listed
                and hold.orphaned_ms is not None
                and hold.orphaned_ms + orphaned_for_ms <= now_ms
            ]
        for job_id in listed:
            holds[job_id].lease_ms = max(holds[job_id].lease_ms, until_ms)
        released = tuple([(job_id, holds[job_id].attempt) for job_id in over])
        for job_id in over:
            self._drop_hold(node_id, job_id)
        return Slots(len(self._holds.get(node_id, ())), released)

    async def count_slots(self, node_ids: Sequence[NodeId]) -> tuple[int, ...]:
        """See Store."""
        return tuple([len(self._holds.get(node_id, ())) for node_id in node_ids])

    async def lapse_slots(self) -> tuple[Hold, ...]:
        """See Store."""
        now_ms = self._clock.now_ms()
        lapsed = tuple(
            Hold(node_id, job_id, hold.attempt)
            for node_id, holds in self._holds.items()
            for job_id, hold in holds.items()
            if hold.lease_ms <= now_ms
        )
        for node_id, job_id, _ in lapsed:
            self._drop_hold(node_id, job_id)
        return lapsed

    async def adopt_job(self, job_id: JobId, dead: InstanceId, owner: InstanceId) -> Job | None:
        """See Store."""
        job = self._find(job_id)
        if job is None:
            return None
        if job.owner == dead and job.state not in ENDED:
            job.owner = owner
        return self._snapshot(job_id, job)

    async def restore_job(
        self, request: JobRequest, owner: InstanceId, state: JobState, attempt: int, node_id: NodeId | None
    ) -> Restored:
        """See Store."""
        job = self._find(request.job_id)
        if job is not None and (job.owner != owner or job.state in ENDED):
            return Restored.TAKEN
        if job is not None and job.attempt >= attempt:
            # Within an attempt the owner can only be ahead by its failure.
            is_behind = job.attempt == attempt and state is JobState.CREATED and job.state is not JobState.CREATED
            if not is_behind:
                return Restored.KEPT
        self._jobs[request.job_id] = _Job(request, owner, state, attempt, node_id)
        return Restored.RESTORED

    async def restore_slots(self, node_id: NodeId, holds: Sequence[tuple[JobId, int]], lease_ms: int) -> Slots:
        """See Store."""
        known = self._holds.setdefault(node_id, {})
        until_ms = self._clock.now_ms() + lease_ms
        for job_id, attempt in holds:
            known.setdefault(job_id, _Hold(attempt, until_ms))
        if not known:
            del self._holds[node_id]
        return Slots(len(known))

    async def idle_holds(self, node_ids: Sequence[NodeId]) -> tuple[Hold, ...]:
        """See Store."""
        return tuple(
            Hold(node_id, job_id, hold.attempt)
            for node_id in node_ids
            for job_id, hold in self._holds.get(node_id, {}).items()
            if hold.orphaned_ms is None and not self._is_at(job_id, node_id, hold.attempt)
        )

    async def orphan_slot(self, hold: Hold, lease_ms: int) -> None:
        """See Store."""
        held = self._holds.get(hold.node_id, {}).get(hold.job_id)
        if held is not None and held.attempt == hold.attempt:
            now_ms = self._clock.now_ms()
            held.orphaned_ms = now_ms
            held.lease_ms = min(held.lease_ms, now_ms + lease_ms)

    def _sweep_jobs(self, now_ms: int) -> None:
        while self._ended and self._jobs[oldest := next(iter(self._ended))].forget_ms <= now_ms:
            self._forget(oldest)

    # --- how

    def _reserve(self, job: _Job, job_id: JobId, ranking: Sequence[Candidate], lease_ms: int) -> Placement:
        tried: list[tuple[NodeId, int]] = []
        for node_id, slots in ranking:
            holds = self._holds.get(node_id)
            if holds is None:
                holds = self._holds[node_id] = {}
            used = len(holds)
            if used >= slots or job_id in holds:
                tried.append((node_id, used))
                continue
            job.attempt += 1
            job.node_id = node_id
            job.state = JobState.RESERVED
            until_ms = self._clock.now_ms() + lease_ms
            holds[job_id] = _Hold(job.attempt, until_ms)
            return Reserved(node_id, job.attempt, used + 1, tuple(tried))
        return AllFull(tuple(tried))

    def _leave_node(self, job: _Job, job_id: JobId, *, release: bool) -> None:
        if job.node_id is None:
            return
        hold = self._holds.get(job.node_id, {}).get(job_id)
        if hold is not None and hold.attempt == job.attempt:
            if release:
                self._drop_hold(job.node_id, job_id)
            else:
                hold.orphaned_ms = self._clock.now_ms()
        job.node_id = None

    def _drop_hold(self, node_id: NodeId, job_id: JobId) -> None:
        holds = self._holds.get(node_id)
        if holds is not None:
            holds.pop(job_id, None)
            if not holds:
                del self._holds[node_id]

    def _is_at(self, job_id: JobId, node_id: NodeId, attempt: int) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and job.node_id == node_id and job.attempt == attempt

    def _find(self, job_id: JobId) -> _Job | None:
        job = self._jobs.get(job_id)
        if job is not None and job.state in ENDED and job.forget_ms <= self._clock.now_ms():
            self._forget(job_id)
            return None
        return job

    def _forget(self, job_id: JobId) -> None:
        del self._jobs[job_id]
        self._ended.pop(job_id, None)
        self._retained_bytes -= self._retained.pop(job_id, 0) + _ENDED_JOB_BYTES

    def _retain(self, job_id: JobId, terminal: Terminal) -> None:
        """Keep an ended job within the budget: the oldest results go first, then the oldest jobs whole."""
        self._ended[job_id] = None
        self._retained[job_id] = size = _size(terminal)
        self._retained_bytes += size + _ENDED_JOB_BYTES
        while self._retained_bytes > self._retained_bytes_max and self._retained:
            old_id, old_size = self._retained.popitem(last=False)
            self._retained_bytes -= old_size
            old = self._jobs[old_id]
            if isinstance(old.terminal, TranslationResult):
                old.terminal = _worn(old.terminal, self._clock.now_ms())
        while self._retained_bytes > self._retained_bytes_max and self._ended:
            self._forget(next(iter(self._ended)))

    def _snapshot(self, job_id: JobId, job: _Job) -> Job:
        return Job(job_id, job.owner, job.request, job.state, job.attempt, job.node_id, job.terminal)


def _stale(job: _Job | None) -> Stale:
    return Stale(None, 0) if job is None else Stale(job.state, job.attempt)


def _size(terminal: Terminal) -> int:
    if not isinstance(terminal, TranslationResult):
        return 0
    size = len(terminal.tts_audio) + len(terminal.text_asr) + len(terminal.text_translated)
    free = (terminal.extra, terminal.service_timings, terminal.reason_codes, terminal.segments_meta)
    # A node may put megabytes into these too.
    return size + sum(len(msgspec.msgpack.encode(value)) for value in free if value is not None)


def _worn(result: TranslationResult, now_ms: int) -> MissingResult:
    return MissingResult(
        session_id=result.session_id,
        utterance_index=result.utterance_index,
        reason="result_expired",
        created_at_ms=now_ms,
        trace_id=result.trace_id,
    )
