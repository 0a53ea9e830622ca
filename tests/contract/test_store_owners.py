"""What does every store promise when an instance, or what the store knew, is lost?"""

from __future__ import annotations

import asyncio

import pytest

from dragoman.core.ids import JobId
from dragoman.core.lifecycle import ENDED, JobState
from dragoman.store.interface import Hold, Moved, Release, Reserved, Restored, Slots, Stale, Store
from tests.support.builders import a_ranking, a_request, a_result
from tests.support.store_steps import (
    AT_WORK,
    J1,
    J2,
    J3,
    KEEP_MS,
    LEASE_MS,
    N1,
    N2,
    N3,
    UNENDED,
    A,
    B,
    C,
    bring_to,
    end,
    the_job,
    used,
)
from tests.support.stores import OpenStore

GRACE_MS = 5000

# --- jobs of an instance that died


@pytest.mark.parametrize("state", UNENDED)
async def test_a_job_of_a_dead_instance_is_adopted_as_it_is(store: Store, state: JobState) -> None:
    attempt = await bring_to(store, state)
    before = await the_job(store)
    job = await store.adopt_job(J1, A, B)
    assert job is not None
    assert (job.owner, job.state, job.attempt, job.node_id) == (B, state, attempt, before.node_id)
    assert job.request is not None
    assert await the_job(store) == job
    assert await used(store) == attempt


async def test_of_many_who_adopt_a_job_at_once_one_does(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    jobs = await asyncio.gather(*(store.adopt_job(J1, A, by) for by in (B, C, B, C)))
    owners = {job.owner for job in jobs if job is not None}
    assert len(owners) == 1
    assert owners == {(await the_job(store)).owner}


async def test_a_job_of_a_living_instance_is_not_adopted(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    job = await store.adopt_job(J1, C, B)
    assert job is not None
    assert job.owner == (await the_job(store)).owner == A


@pytest.mark.parametrize("state", sorted(ENDED))
async def test_a_job_that_has_ended_is_not_adopted(store: Store, state: JobState) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.end_job(J1, 1, None, state, a_result(), release=True, keep_ms=KEEP_MS)
    job = await store.adopt_job(J1, A, B)
    assert job is not None
    assert (job.owner, job.state, job.terminal) == (A, state, a_result())


async def test_no_job_is_adopted_where_there_is_none(store: Store) -> None:
    assert await store.adopt_job(J1, A, B) is None
    assert await store.read_job(J1) is None


async def test_an_adopted_job_goes_on(store: Store) -> None:
    await bring_to(store, JobState.DISPATCHED)
    await store.adopt_job(J1, A, B)
    assert await store.advance_job(J1, 1, N1, JobState.RUNNING) == Moved()
    assert await store.requeue_job(J1, 1, release=True) == Moved()
    assert await store.reserve_slot(J1, 1, a_ranking(n2=1), LEASE_MS) == Reserved(N2, 2, 1, ())
    assert await end(store, attempt=2) == Moved()


async def test_an_adopted_job_can_be_adopted_again(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.adopt_job(J1, A, B)
    job = await store.adopt_job(J1, B, C)
    assert job is not None
    assert job.owner == C


async def test_an_adopted_request_keeps_its_time_to_its_deadline(opened: OpenStore) -> None:
    store = opened.store
    asked = a_request("j1", accepted_ms=opened.now_ms(), deadline_ms=opened.now_ms() + 12_345)
    await store.open_job(asked, A, (), LEASE_MS)
    await opened.advance(7000)
    job = await store.adopt_job(J1, A, B)
    assert job is not None
    assert job.request is not None
    assert job.request.deadline_ms == job.request.accepted_ms + 12_345
    assert abs(job.request.accepted_ms - asked.accepted_ms) <= opened.rest_ms


async def test_a_request_without_a_deadline_has_none_when_adopted(store: Store) -> None:
    await store.open_job(a_request("j1"), A, (), LEASE_MS)
    job = await store.adopt_job(J1, A, B)
    assert job is not None
    assert job.request is not None
    assert job.request.deadline_ms is None


# --- jobs that the store has lost, or of which it has lost the last moves


@pytest.mark.parametrize("state", UNENDED)
async def test_a_job_that_is_missing_is_written_again(store: Store, state: JobState) -> None:
    attempt, node_id = (0, None) if state is JobState.CREATED else (3, N1)
    assert await store.restore_job(a_request("j1"), A, state, attempt, node_id) is Restored.RESTORED
    job = await the_job(store)
    assert (job.owner, job.state, job.attempt, job.node_id, job.terminal) == (A, state, attempt, node_id, None)
    assert job.request is not None
    assert job.request.speech == a_request("j1").speech
    assert await end(store, attempt=attempt) == Moved()


async def test_a_restored_request_keeps_its_times(opened: OpenStore) -> None:
    store = opened.store
    asked = a_request("j1", accepted_ms=opened.now_ms(), deadline_ms=opened.now_ms() + 12_345)
    await opened.advance(7000)
    await store.restore_job(asked, A, JobState.CREATED, 0, None)
    request = (await the_job(store)).request
    assert request is not None
    assert request.deadline_ms == request.accepted_ms + 12_345
    assert abs(request.accepted_ms - asked.accepted_ms) <= opened.rest_ms


@pytest.mark.parametrize("state", AT_WORK)
async def test_a_job_that_is_known_at_its_attempt_is_kept(store: Store, state: JobState) -> None:
    await bring_to(store, state)
    before = await the_job(store)
    assert await store.restore_job(a_request("j1"), A, JobState.RESERVED, 1, N1) is Restored.KEPT
    assert await the_job(store) == before


async def test_a_job_that_is_behind_is_brought_to_where_its_owner_is(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    assert await store.restore_job(a_request("j1"), A, JobState.DISPATCHED, 2, N2) is Restored.RESTORED
    job = await the_job(store)
    assert (job.state, job.attempt, job.node_id) == (JobState.DISPATCHED, 2, N2)
    assert await store.advance_job(J1, 2, N2, JobState.RUNNING) == Moved()


@pytest.mark.parametrize("state", AT_WORK)
async def test_a_job_whose_attempt_failed_unknown_to_the_store_is_behind(store: Store, state: JobState) -> None:
    await bring_to(store, state)
    assert await store.restore_job(a_request("j1"), A, JobState.CREATED, 1, None) is Restored.RESTORED
    assert await store.reserve_slot(J1, 1, a_ranking(n2=1), LEASE_MS) == Reserved(N2, 2, 1, ())


async def test_an_attempt_never_goes_back(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    await store.reserve_slot(J1, 1, a_ranking(n2=1), LEASE_MS)
    before = await the_job(store)
    assert await store.restore_job(a_request("j1"), A, JobState.RUNNING, 1, N1) is Restored.KEPT
    assert await store.restore_job(a_request("j1"), A, JobState.CREATED, 1, None) is Restored.KEPT
    assert await the_job(store) == before
    assert await store.advance_job(J1, 1, N1, JobState.RUNNING) == Stale(JobState.RESERVED, 2)


async def test_a_job_that_another_has_adopted_is_taken(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.adopt_job(J1, A, B)
    before = await the_job(store)
    assert await store.restore_job(a_request("j1"), A, JobState.RUNNING, 9, N1) is Restored.TAKEN
    assert await the_job(store) == before


async def test_a_job_that_has_ended_is_taken(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await end(store)
    before = await the_job(store)
    assert await store.restore_job(a_request("j1"), A, JobState.RUNNING, 9, N1) is Restored.TAKEN
    assert await the_job(store) == before


async def test_a_restored_job_is_known_to_whoever_asks_again(store: Store) -> None:
    await store.restore_job(a_request("j1"), A, JobState.RUNNING, 1, N1)
    await store.open_job(a_request("j1"), B, a_ranking(n1=9), LEASE_MS)
    job = await the_job(store)
    assert (job.owner, job.state) == (A, JobState.RUNNING)
    assert await used(store) == 0


# --- slots that the store has lost


async def test_missing_slots_are_written_again(store: Store) -> None:
    assert await store.restore_slots(N1, [(J1, 1), (J2, 3)], LEASE_MS) == Slots(2)
    assert await store.count_slots([N1, N2]) == (2, 0)
    assert await store.release_slot(N1, J2, 2) is Release.NOT_HELD
    assert await store.release_slot(N1, J2, 3) is Release.RELEASED


async def test_slots_that_are_there_stay_as_they_are(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J1)
    await opened.advance(LEASE_MS // 2)
    assert await store.restore_slots(N1, [(J1, 7), (J2, 1)], LEASE_MS) == Slots(2)
    await opened.advance(LEASE_MS // 2)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    assert await store.release_slot(N1, J2, 1) is Release.RELEASED


async def test_a_restored_slot_has_a_lease(opened: OpenStore) -> None:
    store = opened.store
    await store.restore_slots(N1, [(J1, 2)], LEASE_MS)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()
    await opened.advance(opened.rest_ms)
    assert await store.lapse_slots() == (Hold(N1, J1, 2),)


async def test_restoring_no_slots_tells_how_many_there_are(store: Store) -> None:
    assert await store.restore_slots(N1, [], LEASE_MS) == Slots(0)
    await bring_to(store, JobState.RUNNING)
    assert await store.restore_slots(N1, [], LEASE_MS) == Slots(1)


async def test_a_restored_slot_counts_against_new_jobs(store: Store) -> None:
    await store.restore_slots(N1, [(J1, 1)], LEASE_MS)
    answer = await store.open_job(a_request("j2"), A, a_ranking(n1=1, n2=1), LEASE_MS)
    assert answer == Reserved(N2, 1, 1, ((N1, 1),))


# --- slots without a job


@pytest.mark.parametrize("state", AT_WORK)
async def test_a_slot_of_a_live_attempt_is_not_idle(store: Store, state: JobState) -> None:
    await bring_to(store, state)
    assert await store.idle_holds([N1, N2]) == ()


@pytest.mark.parametrize("how", ["requeued", "ended"])
async def test_a_slot_of_an_attempt_that_is_known_to_be_over_is_not_idle(store: Store, how: str) -> None:
    await bring_to(store, JobState.RUNNING)
    if how == "requeued":
        await store.requeue_job(J1, 1, release=False)
    else:
        await end(store, release=False)
    assert await store.idle_holds([N1]) == ()
    assert await used(store) == 1


async def test_a_slot_without_a_job_is_idle(store: Store) -> None:
    await store.restore_slots(N1, [(J1, 1)], LEASE_MS)
    assert await store.idle_holds([N1]) == (Hold(N1, J1, 1),)


@pytest.mark.parametrize(("attempt", "node"), [(1, "n1"), (2, "n2"), (3, "n2")])
async def test_a_slot_whose_job_is_elsewhere_is_idle(store: Store, attempt: int, node: str) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    await store.reserve_slot(J1, 1, a_ranking(n3=1), LEASE_MS)
    left = Hold(N1 if node == "n1" else N2, J1, attempt)
    await store.restore_slots(left.node_id, [(J1, attempt)], LEASE_MS)
    assert await store.idle_holds([N1, N2, N3]) == (left,)


async def test_only_the_nodes_asked_for_are_looked_at(store: Store) -> None:
    for node_id in (N1, N2, N3):
        await store.restore_slots(node_id, [(J1, 1)], LEASE_MS)
    assert set(await store.idle_holds([N3, N1])) == {Hold(N1, J1, 1), Hold(N3, J1, 1)}
    assert await store.idle_holds([]) == ()


async def test_an_orphaned_slot_is_not_idle_any_more_and_still_taken(store: Store) -> None:
    await store.restore_slots(N1, [(J1, 1)], LEASE_MS)
    await store.orphan_slot(Hold(N1, J1, 1), LEASE_MS)
    assert await store.idle_holds([N1]) == ()
    assert await used(store) == 1


async def test_an_orphaned_slot_is_given_back_when_the_node_does_not_list_it(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await store.orphan_slot(Hold(N1, J1, 1), 10 * LEASE_MS)
    await opened.advance(opened.almost(GRACE_MS))
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=GRACE_MS) == Slots(1)
    await opened.advance(opened.rest_ms)
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=GRACE_MS) == Slots(0, ((J1, 1),))


async def test_an_orphaned_slot_lapses_by_its_new_lease(opened: OpenStore) -> None:
    store = opened.store
    await store.open_job(a_request("j1"), A, a_ranking(n1=1), 10 * LEASE_MS)
    await store.orphan_slot(Hold(N1, J1, 1), LEASE_MS)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()
    await opened.advance(opened.rest_ms)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_orphaning_never_lengthens_a_lease(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await store.orphan_slot(Hold(N1, J1, 1), 10 * LEASE_MS)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_orphaning_a_slot_leaves_the_others_of_its_node(opened: OpenStore) -> None:
    store = opened.store
    await store.restore_slots(N1, [(J1, 1), (J2, 1)], 10 * LEASE_MS)
    await store.orphan_slot(Hold(N1, J1, 1), LEASE_MS // 10)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    assert await store.idle_holds([N1]) == (Hold(N1, J2, 1),)


@pytest.mark.parametrize("hold", [Hold(N1, J1, 2), Hold(N1, J3, 1), Hold(N2, J1, 1)])
async def test_orphaning_what_is_not_held_changes_nothing(opened: OpenStore, hold: Hold) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await store.orphan_slot(hold, 1)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=0) == Slots(1)
    assert await store.count_slots([N1, N2]) == (1, 0)


@pytest.mark.parametrize("how", ["released", "not listed", "lapsed"])
async def test_a_new_attempt_at_the_node_is_not_an_orphan(opened: OpenStore, how: str) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J2)
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=False)
    if how == "released":
        await store.release_slot(N1, J1, 1)
    elif how == "not listed":
        await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=0)
    else:
        await store.renew_slots(N1, [J2], 10 * LEASE_MS, orphaned_for_ms=10 * LEASE_MS)
        await opened.advance(LEASE_MS)
        await store.lapse_slots()
    await store.reserve_slot(J1, 1, a_ranking(n1=9), LEASE_MS)
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=0) == Slots(2)
    assert await store.renew_slots(N1, [J1, JobId("other")], LEASE_MS, orphaned_for_ms=0) == Slots(2)
    assert await store.idle_holds([N1]) == ()
