"""What would a store answer, said as simply as can be? No bytes, no budget, no speed: just the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import Candidate
from dragoman.core.lifecycle import ENDED, MOVES, JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import (
    AllFull,
    Lapsed,
    Moved,
    NoResume,
    Parked,
    Placement,
    Release,
    Reserved,
    Slots,
    Stale,
)


@dataclass
class ModelJob:
    """A job, as the rules see it."""

    state: JobState = JobState.CREATED
    attempt: int = 0
    node_id: NodeId | None = None
    terminal: Terminal | None = None
    forget_ms: int | None = None


@dataclass
class ModelHold:
    """A claim of an attempt on a slot. Of a job and a node there is one at most."""

    attempt: int
    lease_ms: int
    over_ms: int | None = None


@dataclass
class ModelSession:
    """A session, as the rules see it."""

    tokens: set[bytes]
    token: bytes
    parked: list[Parked] = field(default_factory=list)
    forget_ms: int | None = None


class StoreModel:
    """Every verb, on plain dictionaries, with the time as an argument of the whole."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.jobs: dict[JobId, ModelJob] = {}
        self.holds: dict[tuple[NodeId, JobId], ModelHold] = {}
        self.sessions: dict[SessionId, ModelSession] = {}

    def advance(self, by_ms: int) -> None:
        """Time goes by, and what has passed its time is forgotten."""
        self.now_ms += by_ms
        self.jobs = {key: job for key, job in self.jobs.items() if not self._is_over(job.forget_ms)}
        self.sessions = {key: kept for key, kept in self.sessions.items() if not self._is_over(kept.forget_ms)}

    def used(self, node_id: NodeId) -> int:
        """How many slots of a node are taken."""
        return sum(holder == node_id for holder, _ in self.holds)

    def open_job(self, job_id: JobId, ranking: Sequence[Candidate], lease_ms: int) -> Placement | None:
        """None: the job is known."""
        if job_id in self.jobs:
            return None
        self.jobs[job_id] = ModelJob()
        return self._reserve(job_id, ranking, lease_ms)

    def reserve_slot(
        self, job_id: JobId, attempt: int, ranking: Sequence[Candidate], lease_ms: int
    ) -> Placement | Stale:
        """See Store."""
        return self._stale(job_id, attempt, JobState.RESERVED) or self._reserve(job_id, ranking, lease_ms)

    def advance_job(self, job_id: JobId, attempt: int, node_id: NodeId, to: JobState) -> Moved | Stale:
        """See Store."""
        stale = self._stale(job_id, attempt, to, node_id)
        if stale is not None:
            return stale
        self.jobs[job_id].state = to
        return Moved()

    def requeue_job(self, job_id: JobId, attempt: int, *, release: bool) -> Moved | Stale:
        """See Store."""
        stale = self._stale(job_id, attempt, JobState.CREATED)
        if stale is not None:
            return stale
        self._leave(job_id, release=release)
        self.jobs[job_id].state = JobState.CREATED
        return Moved()

    def end_job(
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
        stale = self._stale(job_id, attempt, to, node_id)
        if stale is not None:
            return stale
        self._leave(job_id, release=release)
        job = self.jobs[job_id]
        job.state, job.terminal, job.forget_ms = to, terminal, self.now_ms + keep_ms
        self.advance(0)
        return Moved()

    def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """See Store."""
        hold = self.holds.get((node_id, job_id))
        if hold is None or hold.attempt != attempt:
            return Release.NOT_HELD
        del self.holds[node_id, job_id]
        return Release.RELEASED

    def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_before_ms: int
    ) -> Slots:
        """See Store."""
        released = 0
        for (holder, job_id), hold in list(self.holds.items()):
            if holder != node_id:
                continue
            if (running is None and hold.over_ms is None) or (running is not None and job_id in running):
                hold.lease_ms = self.now_ms + lease_ms
            elif running is not None and hold.over_ms is not None and hold.over_ms <= orphaned_before_ms:
                del self.holds[holder, job_id]
                released += 1
        return Slots(self.used(node_id), released)

    def lapse_slots(self) -> set[Lapsed]:
        """See Store."""
        lapsed = {
            Lapsed(node_id, job_id, hold.attempt)
            for (node_id, job_id), hold in self.holds.items()
            if hold.lease_ms <= self.now_ms
        }
        for node_id, job_id, _ in lapsed:
            del self.holds[node_id, job_id]
        return lapsed

    def open_session(self, session_id: SessionId, token: bytes) -> None:
        """See Store."""
        self.sessions[session_id] = ModelSession({token}, token)

    def resume_session(self, session_id: SessionId, token: bytes, following: bytes) -> tuple[Parked, ...] | NoResume:
        """What was parked."""
        session = self.sessions.get(session_id)
        if session is None:
            return NoResume.UNKNOWN
        if token not in session.tokens:
            return NoResume.WRONG_TOKEN
        parked = tuple(session.parked)
        self.sessions[session_id] = ModelSession({token, following}, following)
        return parked

    def confirm_session(self, session_id: SessionId) -> None:
        """See Store."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.tokens = {session.token}

    def park_terminals(self, session_id: SessionId, parked: Sequence[Parked], keep_ms: int) -> None:
        """See Store."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.parked.extend(parked)
            session.forget_ms = self.now_ms + keep_ms
            self.advance(0)

    def _reserve(self, job_id: JobId, ranking: Sequence[Candidate], lease_ms: int) -> Placement:
        tried: list[tuple[NodeId, int]] = []
        for node_id, slots in ranking:
            used = self.used(node_id)
            if used < slots and (node_id, job_id) not in self.holds:
                job = self.jobs[job_id]
                job.state, job.attempt, job.node_id = JobState.RESERVED, job.attempt + 1, node_id
                self.holds[node_id, job_id] = ModelHold(job.attempt, self.now_ms + lease_ms)
                return Reserved(node_id, job.attempt, used + 1, tuple(tried))
            tried.append((node_id, used))
        return AllFull(tuple(tried))

    def _stale(self, job_id: JobId, attempt: int, to: JobState, node_id: NodeId | None = None) -> Stale | None:
        job = self.jobs.get(job_id)
        if job is None:
            return Stale(None, 0)
        is_current = job.attempt == attempt and (node_id is None or job.node_id == node_id)
        return None if is_current and to in MOVES[job.state] else Stale(job.state, job.attempt)

    def _leave(self, job_id: JobId, *, release: bool) -> None:
        job = self.jobs[job_id]
        if job.node_id is None:
            return
        hold = self.holds.get((job.node_id, job_id))
        if hold is not None and hold.attempt == job.attempt:
            if release:
                del self.holds[job.node_id, job_id]
            else:
                hold.over_ms = self.now_ms
        job.node_id = None

    def _is_over(self, forget_ms: int | None) -> bool:
        return forget_ms is not None and forget_ms <= self.now_ms


def may_follow(before: ModelJob, after: ModelJob) -> bool:
    """Whether one step can have made the one of the other."""
    if before.state in ENDED:
        return after == before
    if before.state is after.state:
        return after == before
    return after.state in MOVES[before.state] and after.attempt - before.attempt in (0, 1)
