"""Does a store that is used in any order at all keep its rules?

Every verb goes to every store of a machine; their answers are compared with each other and with the model's. A machine
with other stores is a subclass that names them in `makers`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from copy import copy
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId
from dragoman.core.job import Candidate
from dragoman.core.lifecycle import AT_A_NODE, ENDED, JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import ANYBODY, NOBODY, Hold, Job, Known, NoResume, Owed, Place, Resumed, Slots, Store
from tests.support.builders import a_candidate, a_missing_result, a_parked, a_record, a_request, a_result, an_error
from tests.support.store_machine import StoreMachine, as_set
from tests.support.store_model import ModelJob, may_follow
from tests.support.store_steps import S1, S2, A, B
from tests.support.stores import MakeStore, memory_store, valkey_cluster_store, valkey_store

SLOTS = {NodeId("n1"): 1, NodeId("n2"): 2, NodeId("none"): 0}
NODES = tuple(SLOTS)
SESSIONS = (S1, S2)
JOBS = tuple(JobId(f"j{number}") for number in range(4))
TOKENS = tuple(bytes([number]) * 32 for number in range(3))

jobs = st.sampled_from(JOBS)
nodes = st.sampled_from(NODES)
owners = st.sampled_from([A, A, B])
seers = st.sampled_from([ANYBODY, ANYBODY, NOBODY, A, B])
sessions = st.sampled_from(SESSIONS)
tokens = st.sampled_from(TOKENS)
rankings = st.lists(nodes, unique=True, max_size=3).map(
    lambda ranked: tuple(a_candidate(node_id, SLOTS[node_id]) for node_id in ranked)
)
leases = st.sampled_from([2, 2, 3, 11])
"""In units of the machine's time. None so short that a slot could go of itself before leases are looked at."""
short_leases = st.sampled_from([1, 2, 11])
graces = st.sampled_from([0, 1, 2])
keeps = st.sampled_from([0, 1, 11])
off_by = st.sampled_from([0, 0, 0, 0, 0, -1, 1])
"""How far the attempt that is named is from the current one."""
misses = st.sampled_from([None, None, None, *NODES])
"""None: the node where the job is; else one that may be another."""
terminals: st.SearchStrategy[Terminal] = st.sampled_from([a_result(), an_error(), a_missing_result()])
places = st.builds(Place, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(-1, 9))


class JobsMachine(StoreMachine):
    """Any use at all of jobs and slots."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[JobId, ModelJob] = {}

    @rule(job_id=jobs, owner=owners, ranking=rankings, lease=leases)
    def open_job(self, job_id: JobId, owner: InstanceId, ranking: tuple[Candidate, ...], lease: int) -> None:
        request, lease_ms = a_request(job_id), self.span_ms(lease)
        answer = self.ask(lambda store: _shown(store.open_job(request, owner, ranking, lease_ms)))
        wanted = self.model.open_job(job_id, owner, ranking, lease_ms)
        assert answer == (wanted or self._job(job_id))

    @rule(job_id=jobs, off=off_by, ranking=rankings, lease=leases)
    def reserve_slot(self, job_id: JobId, off: int, ranking: tuple[Candidate, ...], lease: int) -> None:
        attempt, lease_ms = self._attempt(job_id) + off, self.span_ms(lease)
        answer = self.ask(lambda store: store.reserve_slot(job_id, attempt, ranking, lease_ms))
        assert answer == self.model.reserve_slot(job_id, attempt, ranking, lease_ms)

    @rule(job_id=jobs, off=off_by, node=misses, to=st.sampled_from(sorted(AT_A_NODE)))
    def advance_job(self, job_id: JobId, off: int, node: NodeId | None, to: JobState) -> None:
        attempt, node_id = self._attempt(job_id) + off, node or self._node(job_id) or NODES[0]
        answer = self.ask(lambda store: store.advance_job(job_id, attempt, node_id, to))
        assert answer == self.model.advance_job(job_id, attempt, node_id, to)

    @rule(job_id=jobs, off=off_by, release=st.booleans())
    def requeue_job(self, job_id: JobId, off: int, release: bool) -> None:
        attempt = self._attempt(job_id) + off
        answer = self.ask(lambda store: store.requeue_job(job_id, attempt, release=release))
        assert answer == self.model.requeue_job(job_id, attempt, release=release)

    @rule(
        job_id=jobs,
        off=off_by,
        node=misses,
        is_fenced=st.booleans(),
        to=st.sampled_from(sorted(ENDED)),
        terminal=terminals,
        release=st.booleans(),
        keep=keeps,
    )
    def end_job(
        self,
        job_id: JobId,
        off: int,
        node: NodeId | None,
        is_fenced: bool,
        to: JobState,
        terminal: Terminal,
        release: bool,
        keep: int,
    ) -> None:
        attempt, node_id = self._attempt(job_id) + off, (node or self._node(job_id)) if is_fenced else None
        keep_ms = self.span_ms(keep)
        answer = self.ask(
            lambda store: store.end_job(job_id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        )
        wanted = self.model.end_job(job_id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        assert answer == wanted

    @rule(job_id=jobs, dead=owners, owner=owners)
    def adopt_job(self, job_id: JobId, dead: InstanceId, owner: InstanceId) -> None:
        answer = self.ask(lambda store: _shown(store.adopt_job(job_id, dead, owner)))
        self.model.adopt_job(job_id, dead, owner)
        assert answer == (self._job(job_id) if job_id in self.model.jobs else None)

    @rule(job_id=jobs, owner=owners, off=off_by, node_id=nodes, state=st.sampled_from(sorted(AT_A_NODE)))
    def restore_job_at_a_node(
        self, job_id: JobId, owner: InstanceId, off: int, node_id: NodeId, state: JobState
    ) -> None:
        self._restore(job_id, owner, state, max(1, self._attempt(job_id) + off), node_id)

    @rule(job_id=jobs, owner=owners, off=off_by)
    def restore_job_that_waits(self, job_id: JobId, owner: InstanceId, off: int) -> None:
        self._restore(job_id, owner, JobState.CREATED, max(0, self._attempt(job_id) + off), None)

    @rule(node_id=nodes, job_id=jobs, off=off_by)
    def release_slot(self, node_id: NodeId, job_id: JobId, off: int) -> None:
        attempt = self._held(node_id, job_id) + off
        answer = self.ask(lambda store: store.release_slot(node_id, job_id, attempt))
        assert answer == self.model.release_slot(node_id, job_id, attempt)

    @rule(node_id=nodes, held=st.lists(st.tuples(jobs, st.integers(1, 3)), max_size=2), lease=leases)
    def restore_slots(self, node_id: NodeId, held: list[tuple[JobId, int]], lease: int) -> None:
        new = {job_id for job_id, _ in held if (node_id, job_id) not in self.model.holds}
        if self.model.used(node_id) + len(new) > SLOTS[node_id]:
            return
        answer = self.ask(lambda store: store.restore_slots(node_id, held, self.span_ms(lease)))
        assert answer == self.model.restore_slots(node_id, held, self.span_ms(lease))

    @rule(node_id=nodes, running=st.none() | st.lists(jobs, max_size=4), lease=leases, grace=graces)
    def renew_slots(self, node_id: NodeId, running: list[JobId] | None, lease: int, grace: int) -> None:
        lease_ms, for_ms = self.span_ms(lease), self.span_ms(grace)
        answer = self.ask(
            lambda store: _unordered(store.renew_slots(node_id, running, lease_ms, orphaned_for_ms=for_ms))
        )
        assert answer == self.model.renew_slots(node_id, running, lease_ms, orphaned_for_ms=for_ms)

    @rule(node_id=nodes, job_id=jobs, off=off_by, lease=short_leases)
    def orphan_slot(self, node_id: NodeId, job_id: JobId, off: int, lease: int) -> None:
        hold, lease_ms = Hold(node_id, job_id, self._held(node_id, job_id) + off), self.span_ms(lease)
        self.ask(lambda store: store.orphan_slot(hold, lease_ms))
        self.model.orphan_slot(hold, lease_ms)

    # --- what is always so

    @invariant()
    def slots_are_as_in_the_model_and_never_over_committed(self) -> None:
        counts, idle = self.ask(_slots)
        assert counts == tuple(self.model.used(node_id) for node_id in NODES)
        assert all(used <= SLOTS[node_id] for node_id, used in zip(NODES, counts, strict=True))
        assert idle == self.model.idle_holds(NODES)

    @invariant()
    def jobs_are_as_in_the_model_and_move_along_the_table(self) -> None:
        for job_id, shown in zip(JOBS, self.ask(_jobs), strict=True):
            job = self.model.jobs.get(job_id)
            assert shown == (None if job is None else self._job(job_id))
            before = self.seen.pop(job_id, None)
            if job is not None:
                assert before is None or may_follow(before, job)
                self.seen[job_id] = copy(job)

    # --- how

    def _restore(self, job_id: JobId, owner: InstanceId, state: JobState, attempt: int, node_id: NodeId | None) -> None:
        answer = self.ask(lambda store: store.restore_job(a_request(job_id), owner, state, attempt, node_id))
        assert answer == self.model.restore_job(job_id, owner, state, attempt, node_id)
        self.seen.pop(job_id, None)

    def _job(self, job_id: JobId) -> object:
        job = self.model.jobs[job_id]
        return (job_id, job.owner, job.state in ENDED, job.state, job.attempt, job.node_id, job.terminal)

    def _attempt(self, job_id: JobId) -> int:
        job = self.model.jobs.get(job_id)
        return 0 if job is None else job.attempt

    def _held(self, node_id: NodeId, job_id: JobId) -> int:
        hold = self.model.holds.get((node_id, job_id))
        return self._attempt(job_id) if hold is None else hold.attempt

    def _node(self, job_id: JobId) -> NodeId | None:
        job = self.model.jobs.get(job_id)
        return None if job is None else job.node_id


class SessionsMachine(StoreMachine):
    """Any use at all of sessions."""

    @rule(session_id=sessions, token=tokens, owner=owners)
    def open_session(self, session_id: SessionId, token: bytes, owner: InstanceId) -> None:
        self.ask(lambda store: store.open_session(a_record(session_id), token, owner))
        self.model.open_session(session_id, token, owner)

    @rule(session_id=sessions, token=tokens, following=tokens, owner=owners)
    def resume_session(self, session_id: SessionId, token: bytes, following: bytes, owner: InstanceId) -> None:
        owed = self.model.owed(session_id)
        answer = self.ask(lambda store: store.resume_session(session_id, token, following, owner))
        before = self.model.resume_session(session_id, token, following, owner)
        if isinstance(before, NoResume):
            assert answer is before
            return
        assert answer == Resumed(
            record=a_record(session_id),
            parked=tuple(before.parked),
            owed=owed,
            place=before.place,
            previous=before.owner,
        )

    @rule(session_id=sessions)
    def confirm_session(self, session_id: SessionId) -> None:
        self.ask(lambda store: store.confirm_session(session_id))
        self.model.confirm_session(session_id)

    @rule(session_id=sessions, owner=st.none() | owners, count=st.integers(0, 3), keep=keeps, seen=seers)
    def park_terminals(self, session_id: SessionId, owner: InstanceId | None, count: int, keep: int, seen: str) -> None:
        self.before_time_passes()
        parked, keep_ms = [a_parked(serial + 1) for serial in range(count)], self.span_ms(keep)
        answer = self.ask(lambda store: store.park_terminals(session_id, owner, parked, keep_ms, seen=seen))
        assert answer == self.model.park_terminals(session_id, owner, parked, keep_ms, seen=seen)

    @rule(session_id=sessions, token=tokens, owner=owners, place=places)
    def restore_session(self, session_id: SessionId, token: bytes, owner: InstanceId, place: Place) -> None:
        known = self.model.sessions.get(session_id)
        if known is not None and known.forget_ms is not None:
            return
        answer = self.ask(lambda store: store.restore_session(a_record(session_id), token, owner, place))
        assert answer == self.model.restore_session(session_id, token, owner, place)

    @rule(session_id=sessions, owner=owners)
    def close_session(self, session_id: SessionId, owner: InstanceId) -> None:
        self.ask(lambda store: store.close_session(session_id, owner))
        self.model.close_session(session_id, owner)

    @rule(session_id=sessions, job_id=jobs, index=st.integers(0, 3))
    def owe(self, session_id: SessionId, job_id: JobId, index: int) -> None:
        self.tell(lambda store: store.owe(session_id, job_id, index))
        if session_id in self.model.sessions:
            self.model.sessions[session_id].owed.setdefault(job_id, Owed(job_id, index, 0))

    @rule(session_id=sessions, place=places, sent=st.lists(st.builds(Owed, jobs, st.just(2), st.just(9)), max_size=2))
    def note_place(self, session_id: SessionId, place: Place, sent: Sequence[Owed]) -> None:
        self.tell(lambda store: store.note_place(session_id, place, sent))
        if session_id in self.model.sessions:
            self.model.sessions[session_id].place = place
            self.model.sessions[session_id].owed |= {owed.job_id: owed for owed in sent}

    @rule(session_id=sessions, job_ids=st.lists(jobs, max_size=3))
    def settle(self, session_id: SessionId, job_ids: Sequence[JobId]) -> None:
        self.tell(lambda store: store.settle(session_id, job_ids))
        if session_id in self.model.sessions:
            for job_id in job_ids:
                self.model.sessions[session_id].owed.pop(job_id, None)

    @invariant()
    def sessions_are_as_in_the_model(self) -> None:
        for session_id, (owner, owed) in zip(SESSIONS, self.ask(_sessions), strict=True):
            session = self.model.sessions.get(session_id)
            assert owner == (None if session is None else session.owner)
            assert owed == self.model.owed(session_id)

    @invariant()
    def an_instance_that_dies_leaves_no_session_unknown(self) -> None:
        held = {(session.owner, session_id) for session_id, session in self.model.sessions.items()}
        assert self.ask(lambda store: _lists(store, held))

    def before_time_passes(self) -> None:
        """Instances go on holding their sessions."""
        held = {key: session.owner for key, session in self.model.sessions.items() if session.forget_ms is None}
        self.tell(lambda store: _renew(store, held, self.span_ms(1000)))


async def _shown(answering: Awaitable[object]) -> object:
    """An answer, with jobs reduced to what can be compared: a request is there or not."""
    answer = await answering
    job = answer.job if isinstance(answer, Known) else answer
    if not isinstance(job, Job):
        return answer
    return (job.job_id, job.owner, job.request is None, job.state, job.attempt, job.node_id, job.terminal)


async def _unordered(answering: Awaitable[Slots]) -> tuple[int, set[tuple[JobId, int]]]:
    answer = await answering
    assert len(set(answer.released)) == len(answer.released)
    return answer.used, set(answer.released)


async def _slots(store: Store) -> tuple[tuple[int, ...], set[Hold]]:
    return await store.count_slots(NODES), await as_set(store.idle_holds(NODES))


async def _jobs(store: Store) -> list[object]:
    return [await _shown(store.read_job(job_id)) for job_id in JOBS]


async def _sessions(store: Store) -> list[tuple[InstanceId | None, tuple[Owed, ...]]]:
    return [(await store.session_owner(key), await store.owed_jobs(key)) for key in SESSIONS]


async def _lists(store: Store, held: set[tuple[InstanceId, SessionId]]) -> bool:
    """Whether each session is listed with its holder. One that was forgotten may be listed still."""
    return held <= {(owner, session_id) for owner in (A, B) for session_id in await store.sessions_of(owner)}


def _renew(store: Store, held: dict[SessionId, InstanceId], ttl_ms: int) -> None:
    for session_id, owner in held.items():
        store.renew_owners(owner, [], [session_id], ttl_ms, 0)


class JobsOnAServerToo(JobsMachine):
    """Jobs and slots in one process and on a server side by side."""

    makers: ClassVar[tuple[MakeStore, ...]] = (memory_store, valkey_store)
    unit_ms = 100_000
    less_ms = 50_000


class SessionsOnAServerToo(SessionsMachine):
    """Sessions in one process and on a server side by side."""

    makers: ClassVar[tuple[MakeStore, ...]] = (memory_store, valkey_store)
    unit_ms = 100_000
    less_ms = 50_000


class JobsEverywhere(JobsOnAServerToo):
    """Also on a cluster."""

    makers = (memory_store, valkey_store, valkey_cluster_store)


class SessionsEverywhere(SessionsOnAServerToo):
    """Also on a cluster."""

    makers = (memory_store, valkey_store, valkey_cluster_store)


OFTEN = settings(
    max_examples=100, stateful_step_count=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
FEW = settings(OFTEN, max_examples=10, stateful_step_count=40)

TestJobsInMemory = JobsMachine.TestCase
TestJobsInMemory.settings = OFTEN
TestSessionsInMemory = SessionsMachine.TestCase
TestSessionsInMemory.settings = settings(OFTEN, max_examples=50)
TestJobsOnAServerToo = JobsOnAServerToo.TestCase
TestJobsOnAServerToo.settings = FEW
TestSessionsOnAServerToo = SessionsOnAServerToo.TestCase
TestSessionsOnAServerToo.settings = FEW
TestJobsEverywhere = pytest.mark.slow(JobsEverywhere.TestCase)
TestJobsEverywhere.settings = settings(OFTEN, max_examples=100)
TestSessionsEverywhere = pytest.mark.slow(SessionsEverywhere.TestCase)
TestSessionsEverywhere.settings = settings(OFTEN, max_examples=100)
