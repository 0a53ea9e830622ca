"""Does a store that is used in any order at all keep its rules?

Every verb goes to every store of the machine; their answers are compared with each other and with the model's. A
machine with two stores is a subclass that names both in `makers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from copy import copy
from typing import ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import Candidate
from dragoman.core.lifecycle import AT_A_NODE, ENDED, JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import Job, Known, Lapsed, Resumed, Store
from tests.support.builders import a_candidate, a_missing_result, a_parked, a_record, a_request, a_result, an_error
from tests.support.store_model import ModelJob, StoreModel, may_follow
from tests.support.stores import MakeStore, Opened, OpenStore, memory_store

T = TypeVar("T")

SLOTS = {NodeId("n1"): 1, NodeId("n2"): 2, NodeId("none"): 0}
NODES = tuple(SLOTS)
JOBS = tuple(JobId(f"j{number}") for number in range(4))
SESSIONS = (SessionId("s1"), SessionId("s2"))
TOKENS = tuple(bytes([number]) * 32 for number in range(3))
LEASE_MS = 100

jobs = st.sampled_from(JOBS)
nodes = st.sampled_from(NODES)
sessions = st.sampled_from(SESSIONS)
tokens = st.sampled_from(TOKENS)
rankings = st.lists(nodes, unique=True, max_size=3).map(
    lambda ranked: tuple(a_candidate(node_id, SLOTS[node_id]) for node_id in ranked)
)
leases = st.just(LEASE_MS)
off_by = st.sampled_from([0, 0, 0, 0, 0, -1, 1])
"""How far the attempt that is named is from the current one."""
misses = st.sampled_from([None, None, None, *NODES])
"""None: the node where the job is; else one that may be another."""
terminals: st.SearchStrategy[Terminal] = st.sampled_from([a_result(), an_error(), a_missing_result()])
keeps = st.sampled_from([0, 50, 1000])


class StoreMachine(RuleBasedStateMachine):
    """The stores, the model beside them, and time."""

    makers: ClassVar[tuple[MakeStore, ...]] = (memory_store,)

    def __init__(self) -> None:
        super().__init__()
        self.model = StoreModel()
        self._stack = ExitStack()
        self._runner = self._stack.enter_context(asyncio.Runner())
        self._opened: list[OpenStore] = [self._stack.enter_context(Opened(self._runner, make)) for make in self.makers]
        self.seen: dict[JobId, ModelJob] = {}

    def teardown(self) -> None:
        self._stack.close()

    @rule(by_ms=st.sampled_from([1, 50, 50, LEASE_MS, 2000]))
    def advance(self, by_ms: int) -> None:
        self.ask_at(lambda opened: opened.advance(by_ms))
        self.model.advance(by_ms)

    @rule()
    def sweep(self) -> None:
        self.ask(lambda store: store.sweep())

    def ask(self, step: Callable[[Store], Awaitable[T]]) -> T:
        """The answer that every store gives."""
        return self.ask_at(lambda opened: step(opened.store))

    def ask_at(self, step: Callable[[OpenStore], Awaitable[T]]) -> T:
        """The answer that every store gives, where the question needs its time."""

        async def all_of_them() -> list[T]:
            return [await step(opened) for opened in self._opened]

        first, *others = self._runner.run(all_of_them())
        assert all(other == first for other in others)
        return first


class JobsMachine(StoreMachine):
    """Any use at all of jobs and slots."""

    @rule(job_id=jobs, ranking=rankings, lease_ms=leases)
    def open_job(self, job_id: JobId, ranking: tuple[Candidate, ...], lease_ms: int) -> None:
        request = a_request(job_id)
        answer = self.ask(lambda store: _shown(store.open_job(request, ranking, lease_ms)))
        wanted = self.model.open_job(job_id, ranking, lease_ms)
        assert answer == (wanted or self._job(job_id))

    @rule(job_id=jobs, off=off_by, ranking=rankings, lease_ms=leases)
    def reserve_slot(self, job_id: JobId, off: int, ranking: tuple[Candidate, ...], lease_ms: int) -> None:
        attempt = self._attempt(job_id) + off
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
        keep_ms=keeps,
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
        keep_ms: int,
    ) -> None:
        attempt, node_id = self._attempt(job_id) + off, (node or self._node(job_id)) if is_fenced else None
        answer = self.ask(
            lambda store: store.end_job(job_id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        )
        wanted = self.model.end_job(job_id, attempt, node_id, to, terminal, release=release, keep_ms=keep_ms)
        assert answer == wanted

    @rule(node_id=nodes, job_id=jobs, off=off_by)
    def release_slot(self, node_id: NodeId, job_id: JobId, off: int) -> None:
        hold = self.model.holds.get((node_id, job_id))
        attempt = (self._attempt(job_id) if hold is None else hold.attempt) + off
        answer = self.ask(lambda store: store.release_slot(node_id, job_id, attempt))
        assert answer == self.model.release_slot(node_id, job_id, attempt)

    @rule(
        node_id=nodes,
        running=st.none() | st.lists(jobs, max_size=4),
        lease_ms=leases,
        before_ms=st.sampled_from([-50, 0, 1]),
    )
    def renew_slots(self, node_id: NodeId, running: list[JobId] | None, lease_ms: int, before_ms: int) -> None:
        answer = self.ask_at(
            lambda opened: opened.store.renew_slots(
                node_id, running, lease_ms, orphaned_before_ms=opened.now_ms() + before_ms
            )
        )
        wanted = self.model.renew_slots(node_id, running, lease_ms, orphaned_before_ms=self.model.now_ms + before_ms)
        assert answer == wanted

    @rule()
    def lapse_slots(self) -> None:
        answer = self.ask(lambda store: _unordered(store.lapse_slots()))
        assert answer == self.model.lapse_slots()

    # --- what is always so

    @invariant()
    def slots_are_as_in_the_model_and_never_over_committed(self) -> None:
        counts = self.ask(lambda store: store.count_slots(NODES))
        assert counts == tuple(self.model.used(node_id) for node_id in NODES)
        assert all(used <= SLOTS[node_id] for node_id, used in zip(NODES, counts, strict=True))

    @invariant()
    def jobs_are_as_in_the_model_and_move_along_the_table(self) -> None:
        for job_id in JOBS:
            shown = self.ask(lambda store, job_id=job_id: _shown(store.read_job(job_id)))  # type: ignore[misc]
            job = self.model.jobs.get(job_id)
            assert shown == (None if job is None else self._job(job_id))
            before = self.seen.pop(job_id, None)
            if job is not None:
                assert before is None or may_follow(before, job)
                self.seen[job_id] = copy(job)

    # --- how

    def _job(self, job_id: JobId) -> object:
        job = self.model.jobs[job_id]
        return (job_id, job.state in ENDED, job.state, job.attempt, job.node_id, job.terminal)

    def _attempt(self, job_id: JobId) -> int:
        job = self.model.jobs.get(job_id)
        return 0 if job is None else job.attempt

    def _node(self, job_id: JobId) -> NodeId | None:
        job = self.model.jobs.get(job_id)
        return None if job is None else job.node_id


class SessionsMachine(StoreMachine):
    """Any use at all of sessions."""

    @rule(session_id=sessions, token=tokens)
    def open_session(self, session_id: SessionId, token: bytes) -> None:
        self.ask(lambda store: store.open_session(a_record(session_id), token))
        self.model.open_session(session_id, token)

    @rule(session_id=sessions, token=tokens, following=tokens)
    def resume_session(self, session_id: SessionId, token: bytes, following: bytes) -> None:
        answer = self.ask(lambda store: store.resume_session(session_id, token, following))
        wanted = self.model.resume_session(session_id, token, following)
        assert answer == (Resumed(a_record(session_id), wanted) if isinstance(wanted, tuple) else wanted)

    @rule(session_id=sessions)
    def confirm_session(self, session_id: SessionId) -> None:
        self.ask(lambda store: store.confirm_session(session_id))
        self.model.confirm_session(session_id)

    @rule(session_id=sessions, count=st.integers(0, 3), keep_ms=keeps)
    def park_terminals(self, session_id: SessionId, count: int, keep_ms: int) -> None:
        parked = [a_parked(serial + 1) for serial in range(count)]
        self.ask(lambda store: store.park_terminals(session_id, parked, keep_ms))
        self.model.park_terminals(session_id, parked, keep_ms)

    @rule(session_id=sessions)
    def close_session(self, session_id: SessionId) -> None:
        self.ask(lambda store: store.close_session(session_id))
        self.model.sessions.pop(session_id, None)


async def _shown(answering: Awaitable[object]) -> object:
    """An answer, with jobs reduced to what can be compared: a request is there or not."""
    answer = await answering
    job = answer.job if isinstance(answer, Known) else answer
    if not isinstance(job, Job):
        return answer
    return (job.job_id, job.request is None, job.state, job.attempt, job.node_id, job.terminal)


async def _unordered(answering: Awaitable[tuple[Lapsed, ...]]) -> set[Lapsed]:
    answer = await answering
    assert len(set(answer)) == len(answer)
    return set(answer)


OFTEN = settings(max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))

TestJobsInMemory = JobsMachine.TestCase
TestJobsInMemory.settings = OFTEN
TestSessionsInMemory = SessionsMachine.TestCase
TestSessionsInMemory.settings = settings(OFTEN, max_examples=50)
