"""What would a store answer, said as simply as can be? No bytes, no budget, no speed: just the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId
from dragoman.core.job import Candidate
from dragoman.core.lifecycle import ENDED, MOVES, JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import (
    ANYBODY,
    AllFull,
    Hold,
    Moved,
    NoResume,
    Owed,
    Parked,
    Place,
    Placement,
    Release,
    Reserved,
    Restored,
    Slots,
    Stale,
)


@dataclass
class ModelJob:
    """A job, as the rules see it."""

    owner: InstanceId
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

    owner: InstanceId
    tokens: set[bytes]
    token: bytes
    place: Place = field(default_factory=Place)
    owed: dict[JobId, Owed] = field(default_factory=dict)
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

    # --- jobs

    def open_job(
        self, job_id: JobId, owner: InstanceId, ranking: Sequence[Candidate], lease_ms: int
    ) -> Placement | None:
        """None: the job is known."""
        if job_id in self.jobs:
            return None
        self.jobs[job_id] = ModelJob(owner)
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
        if release and node_id is not None:
            self.release_slot(node_id, job_id, attempt)
        if stale is not None:
            return stale
        self._leave(job_id, release=release)
        job = self.jobs[job_id]
        job.state, job.terminal, job.forget_ms = to, terminal, self.now_ms + keep_ms
        self.advance(0)
        return Moved()

    def adopt_job(self, job_id: JobId, dead: InstanceId, owner: InstanceId) -> None:
        """See Store."""
        job = self.jobs.get(job_id)
        if job is not None and job.owner == dead and job.state not in ENDED:
            job.owner = owner

    def restore_job(
        self, job_id: JobId, owner: InstanceId, state: JobState, attempt: int, node_id: NodeId | None
    ) -> Restored:
        """See Store."""
        job = self.jobs.get(job_id)
        if job is not None:
            if job.owner != owner or job.state in ENDED:
                return Restored.TAKEN
            has_failed = state is JobState.CREATED and job.state is not JobState.CREATED
            if (job.attempt, False) >= (attempt, has_failed):
                return Restored.KEPT
        self.jobs[job_id] = ModelJob(owner, state, attempt, node_id)
        return Restored.RESTORED

    # --- slots

    def used(self, node_id: NodeId) -> int:
        """How many slots of a node are taken."""
        return sum(holder == node_id for holder, _ in self.holds)

    def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """See Store."""
        hold = self.holds.get((node_id, job_id))
        if hold is None or hold.attempt != attempt:
            return Release.NOT_HELD
        del self.holds[node_id, job_id]
        return Release.RELEASED

    def restore_slots(self, node_id: NodeId, holds: Sequence[tuple[JobId, int]], lease_ms: int) -> Slots:
        """See Store."""
        for job_id, attempt in holds:
            self.holds.setdefault((node_id, job_id), ModelHold(attempt, self.now_ms + lease_ms))
        return Slots(self.used(node_id))

    def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_for_ms: int
    ) -> tuple[int, set[tuple[JobId, int]]]:
        """How many are taken then, and whose slots were given back."""
        released: set[tuple[JobId, int]] = set()
        for (holder, job_id), hold in list(self.holds.items()):
            if holder != node_id:
                continue
            if (running is None and hold.over_ms is None) or (running is not None and job_id in running):
                hold.lease_ms = max(hold.lease_ms, self.now_ms + lease_ms)
            elif running is not None and hold.over_ms is not None and hold.over_ms + orphaned_for_ms <= self.now_ms:
                del self.holds[holder, job_id]
                released.add((job_id, hold.attempt))
        return self.used(node_id), released

    def lapse_slots(self) -> set[Hold]:
        """See Store."""
        lapsed = {
            Hold(node_id, job_id, hold.attempt)
            for (node_id, job_id), hold in self.holds.items()
            if hold.lease_ms <= self.now_ms
        }
        for node_id, job_id, _ in lapsed:
            del self.holds[node_id, job_id]
        return lapsed

    def idle_holds(self, node_ids: Sequence[NodeId]) -> set[Hold]:
        """See Store."""
        at_work = {(job.node_id, job_id, job.attempt) for job_id, job in self.jobs.items()}
        return {
            Hold(node_id, job_id, hold.attempt)
            for (node_id, job_id), hold in self.holds.items()
            if node_id in node_ids and hold.over_ms is None and (node_id, job_id, hold.attempt) not in at_work
        }

    def orphan_slot(self, hold: Hold, lease_ms: int) -> None:
        """See Store."""
        held = self.holds.get((hold.node_id, hold.job_id))
        if held is not None and held.attempt == hold.attempt:
            held.over_ms = self.now_ms
            held.lease_ms = min(held.lease_ms, self.now_ms + lease_ms)

    # --- sessions

    def open_session(self, session_id: SessionId, token: bytes, owner: InstanceId) -> None:
        """See Store."""
        self.sessions[session_id] = ModelSession(owner, {token}, token)

    def resume_session(
        self, session_id: SessionId, token: bytes, following: bytes, owner: InstanceId
    ) -> ModelSession | NoResume:
        """The session as it was before."""
        session = self.sessions.get(session_id)
        if session is None:
            return NoResume.UNKNOWN
        if token not in session.tokens:
            return NoResume.WRONG_TOKEN
        self.sessions[session_id] = ModelSession(
            owner, {token, following}, following, place=session.place, owed=dict(session.owed)
        )
        return session

    def confirm_session(self, session_id: SessionId) -> None:
        """See Store."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.tokens = {session.token}

    def park_terminals(
        self, session_id: SessionId, owner: InstanceId | None, parked: Sequence[Parked], keep_ms: int, *, seen: str
    ) -> bool:
        """See Store."""
        session = self.sessions.get(session_id)
        if session is None or owner not in (session.owner, None):
            return False
        if owner is None and seen not in (ANYBODY, session.owner):
            return False
        session.parked.extend(parked)
        until_ms = self.now_ms + keep_ms
        if owner is None and session.forget_ms is not None:
            until_ms = min(until_ms, session.forget_ms)
        session.forget_ms = until_ms
        self.advance(0)
        return True

    def restore_session(self, session_id: SessionId, token: bytes, owner: InstanceId, place: Place) -> bool:
        """See Store."""
        session = self.sessions.setdefault(session_id, ModelSession(owner, {token}, token, place))
        return session.owner == owner

    def close_session(self, session_id: SessionId, owner: InstanceId) -> None:
        """See Store."""
        if session_id in self.sessions and self.sessions[session_id].owner == owner:
            del self.sessions[session_id]

    def owed(self, session_id: SessionId) -> tuple[Owed, ...]:
        """See Store."""
        session = self.sessions.get(session_id)
        owed = () if session is None else session.owed.values()
        return tuple(sorted(owed, key=lambda one: (one.index, one.job_id)))

    # --- how

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
    """Whether one step can have made the one of the other, if it was none that wrote a job again."""
    if before.state is after.state:
        return (before.attempt, before.node_id, before.terminal) == (after.attempt, after.node_id, after.terminal)
    return after.state in MOVES[before.state] and after.attempt - before.attempt in (0, 1)
