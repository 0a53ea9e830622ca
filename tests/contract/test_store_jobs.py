"""What does every store promise of jobs?"""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from dragoman.core.ids import JobId
from dragoman.core.lifecycle import AT_A_NODE, ENDED, MOVES, SOURCES, JobState
from dragoman.store.interface import AllFull, Job, Known, Moved, Release, Reserved, Stale, Store
from tests.support.builders import a_ranking, a_request, a_result, an_error
from tests.support.store_steps import (
    AT_WORK,
    J1,
    J2,
    KEEP_MS,
    LEASE_MS,
    N1,
    N2,
    N3,
    UNENDED,
    A,
    bring_to,
    end,
    the_job,
    used,
)
from tests.support.stores import OpenStore

# --- open


async def test_a_new_job_takes_the_first_node(store: Store) -> None:
    answer = await store.open_job(a_request("j1"), A, a_ranking(n1=2, n2=2), LEASE_MS)
    assert answer == Reserved(N1, 1, 1, ())
    assert await store.count_slots([N1, N2]) == (1, 0)


async def test_a_new_job_can_be_read(store: Store) -> None:
    request = a_request("j1", priority=7)
    await store.open_job(request, A, a_ranking(n1=1), LEASE_MS)
    job = await the_job(store)
    assert (job.job_id, job.state, job.attempt, job.node_id, job.terminal) == (J1, JobState.RESERVED, 1, N1, None)
    assert job.request is not None
    assert (job.request.speech, job.request.priority) == (request.speech, 7)
    assert job.request.need is request.need, "needs are compared by identity"


async def test_full_nodes_are_passed_over_and_their_counts_told(store: Store) -> None:
    await store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS)
    await store.open_job(a_request("j2"), A, a_ranking(n2=1), LEASE_MS)
    answer = await store.open_job(a_request("j3"), A, a_ranking(n1=1, n2=1, n3=1), LEASE_MS)
    assert answer == Reserved(N3, 1, 1, ((N1, 1), (N2, 1)))


async def test_when_all_are_full_the_job_is_there_without_a_slot(store: Store) -> None:
    await store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS)
    assert await store.open_job(a_request("j2"), A, a_ranking(n1=1), LEASE_MS) == AllFull(((N1, 1),))
    job = await the_job(store, J2)
    assert (job.state, job.attempt, job.node_id) == (JobState.CREATED, 0, None)
    assert job.request is not None


async def test_an_empty_ranking_makes_a_job_without_a_slot(store: Store) -> None:
    assert await store.open_job(a_request("j1"), A, (), LEASE_MS) == AllFull(())
    assert (await the_job(store)).state is JobState.CREATED


async def test_a_node_without_slots_is_full(store: Store) -> None:
    assert await store.open_job(a_request("j1"), A, a_ranking(n1=0), LEASE_MS) == AllFull(((N1, 0),))


async def test_a_known_request_makes_no_second_job(store: Store) -> None:
    await store.open_job(a_request("j1"), A, a_ranking(n1=2), LEASE_MS)
    answer = await store.open_job(a_request("j1", utterance_index=9), A, a_ranking(n1=2, n2=2), LEASE_MS)
    assert isinstance(answer, Known)
    assert (answer.job.state, answer.job.attempt, answer.job.node_id) == (JobState.RESERVED, 1, N1)
    assert await store.count_slots([N1, N2]) == (1, 0)


async def test_of_many_who_open_one_job_at_once_one_does(store: Store) -> None:
    answers = await asyncio.gather(*(store.open_job(a_request("j1"), A, a_ranking(n1=5), LEASE_MS) for _ in range(10)))
    assert sum(isinstance(answer, Reserved) for answer in answers) == 1
    assert sum(isinstance(answer, Known) for answer in answers) == 9
    assert await used(store) == 1


async def test_slots_are_never_over_committed_by_many_at_once(store: Store) -> None:
    answers = await asyncio.gather(
        *(store.open_job(a_request(f"j{number}"), A, a_ranking(n1=3, n2=4), LEASE_MS) for number in range(20))
    )
    taken = [answer.node_id for answer in answers if isinstance(answer, Reserved)]
    assert (taken.count(N1), taken.count(N2)) == (3, 4)
    assert await store.count_slots([N1, N2]) == (3, 4)


async def test_a_job_that_is_not_there_reads_as_none(store: Store) -> None:
    assert await store.read_job(J1) is None


# --- reserve


async def test_a_waiting_job_gets_a_slot(store: Store) -> None:
    await bring_to(store, JobState.CREATED)
    assert await store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS) == Reserved(N1, 1, 1, ())
    assert (await the_job(store)).state is JobState.RESERVED


async def test_a_waiting_job_may_find_all_full_and_try_again(store: Store) -> None:
    await bring_to(store, JobState.CREATED)
    await store.open_job(a_request("j2"), A, a_ranking(n1=1), LEASE_MS)
    assert await store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS) == AllFull(((N1, 1),))
    await store.release_slot(N1, J2, 1)
    assert await store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS) == Reserved(N1, 1, 1, ())


async def test_of_two_who_reserve_at_once_one_does(store: Store) -> None:
    await bring_to(store, JobState.CREATED)
    answers = await asyncio.gather(
        store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS),
        store.reserve_slot(J1, 0, a_ranking(n2=1), LEASE_MS),
    )
    assert sum(isinstance(answer, Reserved) for answer in answers) == 1
    assert Stale(JobState.RESERVED, 1) in answers
    assert sum(await store.count_slots([N1, N2])) == 1


@pytest.mark.parametrize("attempt", [0, 2])
async def test_reserving_with_another_attempt_is_stale(store: Store, attempt: int) -> None:
    await bring_to(store, JobState.RESERVED)
    await store.requeue_job(J1, 1, release=True)
    assert await store.reserve_slot(J1, attempt, a_ranking(n1=1), LEASE_MS) == Stale(JobState.CREATED, 1)
    assert await used(store) == 0


@pytest.mark.parametrize("state", AT_WORK)
async def test_reserving_for_a_job_that_is_placed_is_stale(store: Store, state: JobState) -> None:
    attempt = await bring_to(store, state)
    assert await store.reserve_slot(J1, attempt, a_ranking(n2=1), LEASE_MS) == Stale(state, attempt)


async def test_reserving_for_no_job_is_stale(store: Store) -> None:
    assert await store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS) == Stale(None, 0)
    assert await used(store) == 0


async def test_reserving_for_an_ended_job_is_stale(store: Store) -> None:
    await bring_to(store, JobState.CREATED)
    await end(store, attempt=0)
    assert await store.reserve_slot(J1, 0, a_ranking(n1=1), LEASE_MS) == Stale(JobState.FAILED, 0)
    assert await used(store) == 0


async def test_a_node_that_holds_an_older_attempt_counts_as_full(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=False)
    assert await store.reserve_slot(J1, 1, a_ranking(n1=100), LEASE_MS) == AllFull(((N1, 1),))
    assert await store.reserve_slot(J1, 1, a_ranking(n1=100, n2=1), LEASE_MS) == Reserved(N2, 2, 1, ((N1, 1),))
    assert await store.count_slots([N1, N2]) == (1, 1)
    assert await store.release_slot(N1, J1, 1) is Release.RELEASED, "what is held stays as it is"


# --- advance


@pytest.mark.parametrize(("state", "to"), list(product(UNENDED, sorted(AT_A_NODE))))
async def test_a_job_moves_along_the_table_only(store: Store, state: JobState, to: JobState) -> None:
    attempt = await bring_to(store, state)
    is_allowed = state in SOURCES[to]
    answer = await store.advance_job(J1, attempt, N1, to)
    assert answer == (Moved() if is_allowed else Stale(state, attempt))
    assert (await the_job(store)).state is (to if is_allowed else state)


async def test_another_attempt_moves_nothing(store: Store) -> None:
    await bring_to(store, JobState.RESERVED)
    for attempt in (0, 2):
        assert await store.advance_job(J1, attempt, N1, JobState.DISPATCHED) == Stale(JobState.RESERVED, 1)
    assert (await the_job(store)).state is JobState.RESERVED


async def test_another_node_moves_nothing(store: Store) -> None:
    await bring_to(store, JobState.RESERVED)
    assert await store.advance_job(J1, 1, N2, JobState.DISPATCHED) == Stale(JobState.RESERVED, 1)
    assert (await the_job(store)).state is JobState.RESERVED


async def test_an_attempt_that_is_over_moves_nothing(store: Store) -> None:
    await bring_to(store, JobState.DISPATCHED)
    await store.requeue_job(J1, 1, release=True)
    await store.reserve_slot(J1, 1, a_ranking(n1=1), LEASE_MS)
    assert await store.advance_job(J1, 1, N1, JobState.DISPATCHED) == Stale(JobState.RESERVED, 2)


async def test_moving_no_job_is_stale(store: Store) -> None:
    assert await store.advance_job(J1, 1, N1, JobState.DISPATCHED) == Stale(None, 0)


# --- requeue


@pytest.mark.parametrize("state", AT_WORK)
async def test_a_failed_attempt_gives_its_slot_back_with_release(store: Store, state: JobState) -> None:
    await bring_to(store, state)
    assert await store.requeue_job(J1, 1, release=True) == Moved()
    job = await the_job(store)
    assert (job.state, job.attempt, job.node_id) == (JobState.CREATED, 1, None)
    assert job.request is not None
    assert await used(store) == 0


async def test_a_failed_attempt_keeps_its_slot_without_release(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    assert await store.requeue_job(J1, 1, release=False) == Moved()
    assert (await the_job(store)).node_id is None
    assert await used(store) == 1


async def test_a_job_is_requeued_once_for_an_attempt(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    assert await store.requeue_job(J1, 1, release=True) == Stale(JobState.CREATED, 1)


async def test_requeueing_another_attempt_is_stale_and_gives_nothing_back(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    for attempt in (0, 2):
        assert await store.requeue_job(J1, attempt, release=True) == Stale(JobState.RUNNING, 1)
    assert await used(store) == 1


async def test_an_ended_job_is_not_requeued(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await end(store)
    assert await store.requeue_job(J1, 1, release=True) == Stale(JobState.FAILED, 1)


async def test_requeueing_no_job_is_stale(store: Store) -> None:
    assert await store.requeue_job(J1, 1, release=True) == Stale(None, 0)


async def test_the_next_attempt_has_the_next_number(store: Store) -> None:
    await bring_to(store, JobState.DISPATCHED)
    for attempt in (1, 2, 3):
        await store.requeue_job(J1, attempt, release=True)
        assert await store.reserve_slot(J1, attempt, a_ranking(n1=1), LEASE_MS) == Reserved(N1, attempt + 1, 1, ())


# --- end


@pytest.mark.parametrize(("state", "to"), list(product(UNENDED, sorted(ENDED))))
async def test_a_job_ends_as_the_table_allows(store: Store, state: JobState, to: JobState) -> None:
    attempt = await bring_to(store, state)
    is_allowed = to in MOVES[state]
    answer = await store.end_job(J1, attempt, None, to, a_result(), release=True, keep_ms=KEEP_MS)
    assert answer == (Moved() if is_allowed else Stale(state, attempt))
    assert (await the_job(store)).state is (to if is_allowed else state)


@pytest.mark.parametrize(("first", "second"), list(product(sorted(ENDED), sorted(ENDED))))
async def test_a_job_ends_once(store: Store, first: JobState, second: JobState) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.end_job(J1, 1, N1, first, a_result(text_translated="first"), release=False, keep_ms=KEEP_MS)
    before = await the_job(store)
    answer = await store.end_job(J1, 1, None, second, a_result(text_translated="second"), release=True, keep_ms=KEEP_MS)
    assert answer == Stale(first, 1)
    assert await the_job(store) == before
    assert await used(store) == 1


async def test_an_ended_job_keeps_how_it_ended_and_not_what_was_said(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    terminal = a_result(tts_audio=b"\1\2", extra={"a": [1, None, "x"]}, quality_score=0.5)
    await store.end_job(J1, 1, N1, JobState.FINISHED, terminal, release=True, keep_ms=KEEP_MS)
    assert await store.read_job(J1) == Job(J1, A, None, JobState.FINISHED, 1, None, terminal)


async def test_asking_again_for_an_ended_job_gets_how_it_ended(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    error = an_error(details={"retryable": False})
    await store.end_job(J1, 1, None, JobState.FAILED, error, release=True, keep_ms=KEEP_MS)
    answer = await store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS)
    assert answer == Known(Job(J1, A, None, JobState.FAILED, 1, None, error))
    assert await used(store) == 0


async def test_an_ended_job_is_known_for_keep_ms(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await end(store)
    await opened.advance(opened.almost(KEEP_MS))
    await store.sweep()
    assert await store.read_job(J1) is not None
    await opened.advance(opened.rest_ms)
    assert await store.read_job(J1) is None
    assert await store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS) == Reserved(N1, 1, 1, ())


async def test_a_swept_job_is_gone_and_its_id_is_free(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await end(store)
    await opened.advance(KEEP_MS)
    await store.sweep()
    assert await end(store) == Stale(None, 0)
    assert isinstance(await store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS), Reserved)


async def test_a_job_under_way_is_never_swept(opened: OpenStore) -> None:
    store = opened.store
    for job_id, state in zip(("a", "b", "c", "d", "e"), UNENDED, strict=True):
        await bring_to(store, state, JobId(job_id))
    await opened.advance(KEEP_MS)
    await store.sweep()
    found = [(await the_job(store, JobId(job_id))).state for job_id in "abcde"]
    assert found == list(UNENDED)


async def test_another_attempt_ends_nothing(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    for attempt in (0, 2):
        assert await end(store, attempt=attempt) == Stale(JobState.RUNNING, 1)
    assert await used(store) == 1


async def test_another_node_ends_nothing(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    answer = await store.end_job(J1, 1, N2, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS)
    assert answer == Stale(JobState.RUNNING, 1)
    assert await used(store) == 1


@pytest.mark.parametrize("release", [False, True])
async def test_a_node_that_was_given_up_ends_nothing_and_gives_back_what_it_is_done_with(
    store: Store, release: bool
) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=False)
    answer = await store.end_job(J1, 1, N1, JobState.FAILED, an_error(), release=release, keep_ms=KEEP_MS)
    assert answer == Stale(JobState.CREATED, 1)
    assert await used(store) == (0 if release else 1)


async def test_a_late_end_of_an_old_attempt_leaves_the_slot_of_the_new_one(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    await store.reserve_slot(J1, 1, a_ranking(n1=1), LEASE_MS)
    answer = await store.end_job(J1, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS)
    assert answer == Stale(JobState.RESERVED, 2)
    assert await used(store) == 1


async def test_a_late_end_of_a_forgotten_job_gives_its_slot_back(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.end_job(J1, 1, None, JobState.EXPIRED, an_error(), release=False, keep_ms=0)
    answer = await store.end_job(J1, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS)
    assert answer == Stale(None, 0)
    assert await used(store) == 0


async def test_ending_gives_the_slot_back_with_release(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await end(store, release=True)
    assert await used(store) == 0


async def test_ending_keeps_the_slot_without_release(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await end(store, release=False)
    assert await used(store) == 1
    assert await store.release_slot(N1, J1, 1) is Release.RELEASED


async def test_ending_a_job_without_a_slot_touches_no_slot(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=False)
    assert await end(store, release=True) == Moved()
    assert await used(store) == 1


async def test_a_hold_of_an_earlier_life_of_an_id_is_not_the_new_jobs(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await store.end_job(J1, 1, None, JobState.FAILED, an_error(), release=False, keep_ms=0)
    answer = await store.open_job(a_request("j1"), A, a_ranking(n1=100, n2=1), LEASE_MS)
    assert answer == Reserved(N2, 1, 1, ((N1, 1),))
