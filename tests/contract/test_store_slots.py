"""What does every store promise of the slots of nodes?"""

from __future__ import annotations

import asyncio

import pytest

from dragoman.core.ids import JobId, NodeId
from dragoman.core.lifecycle import JobState
from dragoman.store.interface import AllFull, Hold, Release, Reserved, Slots, Store
from tests.support.builders import a_ranking, a_request
from tests.support.store_steps import J1, J2, J3, LEASE_MS, N1, N2, N3, A, bring_to, end, the_job, used
from tests.support.stores import OpenStore

GRACE_MS = 5000
"""After which a node that does not list a job is done with it."""


# --- release


async def test_a_slot_is_given_back_once(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await bring_to(store, JobState.RUNNING, J2)
    assert await store.release_slot(N1, J1, 1) is Release.RELEASED
    assert await store.release_slot(N1, J1, 1) is Release.NOT_HELD
    assert await used(store) == 1


async def test_only_the_attempt_that_holds_a_slot_gives_it_back(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=True)
    await store.reserve_slot(J1, 1, a_ranking(n1=1), LEASE_MS)
    assert await store.release_slot(N1, J1, 1) is Release.NOT_HELD
    assert await store.release_slot(N2, J1, 2) is Release.NOT_HELD
    assert await used(store) == 1


async def test_giving_back_moves_no_job(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.release_slot(N1, J1, 1)
    job = await the_job(store)
    assert (job.state, job.attempt, job.node_id) == (JobState.RUNNING, 1, N1)


async def test_a_slot_that_was_given_back_twice_is_one_slot(store: Store) -> None:
    await bring_to(store, JobState.RUNNING)
    await store.release_slot(N1, J1, 1)
    await end(store, release=True)
    assert await used(store) == 0
    assert await store.open_job(a_request("j2"), A, a_ranking(n1=1), LEASE_MS) == Reserved(N1, 1, 1, ())
    assert await store.open_job(a_request("j3"), A, a_ranking(n1=1), LEASE_MS) == AllFull(((N1, 1),))


# --- renew and lapse


async def test_a_slot_whose_lease_runs_out_lapses_once(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()
    await opened.advance(opened.rest_ms)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    assert await store.lapse_slots() == ()
    assert await used(store) == 0


async def test_only_overdue_slots_lapse(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J1)
    await opened.advance(LEASE_MS // 2)
    await bring_to(store, JobState.RUNNING, J2)
    await bring_to(store, JobState.RUNNING, J3, N2)
    await opened.advance(LEASE_MS // 2)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    assert await store.count_slots([N1, N2]) == (1, 1)


async def test_each_of_many_slots_lapses_for_one_of_those_who_ask_at_once(opened: OpenStore) -> None:
    store = opened.store
    for number in range(20):
        await bring_to(store, JobState.RUNNING, JobId(f"j{number}"), NodeId(f"n{number % 3}"))
    await opened.advance(LEASE_MS)
    answers = await asyncio.gather(*(store.lapse_slots() for _ in range(4)))
    lapsed = [one for answer in answers for one in answer]
    assert len(lapsed) == len(set(lapsed)) == 20


async def test_a_lapsed_slot_moves_no_job(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await opened.advance(LEASE_MS)
    await store.lapse_slots()
    job = await the_job(store)
    assert (job.state, job.node_id) == (JobState.RUNNING, N1)
    assert await store.release_slot(N1, J1, 1) is Release.NOT_HELD


async def test_an_overdue_slot_is_taken_until_it_lapses(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await opened.advance(LEASE_MS)
    assert await used(store) == 1


async def test_a_heartbeat_renews_the_jobs_it_lists(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J1)
    await bring_to(store, JobState.RUNNING, J2)
    await bring_to(store, JobState.RUNNING, J3, N2)
    await opened.advance(LEASE_MS // 2)
    assert await store.renew_slots(N1, [J1, J3, JobId("nobody")], LEASE_MS, orphaned_for_ms=LEASE_MS) == Slots(2)
    await opened.advance(LEASE_MS // 2)
    assert set(await store.lapse_slots()) == {Hold(N1, J2, 1), Hold(N2, J3, 1)}
    await opened.advance(LEASE_MS // 2)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_a_slot_that_was_renewed_for_long_lapses_in_the_end(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    for _ in range(20):
        await opened.advance(LEASE_MS // 2)
        assert await store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=0) == Slots(1)
        assert await store.lapse_slots() == ()
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_a_heartbeat_without_a_list_does_not_keep_a_slot_of_an_attempt_that_is_over(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J1)
    await store.requeue_job(J1, 1, release=False)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.renew_slots(N1, None, LEASE_MS, orphaned_for_ms=0) == Slots(1)
    await opened.advance(opened.rest_ms)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_a_heartbeat_without_a_list_renews_all_that_are_current(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING, J1)
    await bring_to(store, JobState.RUNNING, J2)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.renew_slots(N1, None, LEASE_MS, orphaned_for_ms=0) == Slots(2)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()


async def test_a_heartbeat_of_a_node_without_slots_finds_none(store: Store) -> None:
    assert await store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=LEASE_MS) == Slots(0)
    assert await store.renew_slots(N1, None, LEASE_MS, orphaned_for_ms=LEASE_MS) == Slots(0)
    assert await used(store) == 0


@pytest.mark.parametrize("how", ["requeued", "ended"])
async def test_a_slot_the_node_no_longer_needs_is_given_back_after_a_grace(opened: OpenStore, how: str) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    if how == "requeued":
        await store.requeue_job(J1, 1, release=False)
    else:
        await end(store, release=False)
    await opened.advance(opened.almost(GRACE_MS))
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=GRACE_MS) == Slots(1)
    await opened.advance(opened.rest_ms)
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=GRACE_MS) == Slots(0, released=((J1, 1),))
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=GRACE_MS) == Slots(0)


async def test_a_slot_of_an_attempt_that_is_over_is_kept_while_the_node_lists_it(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.RUNNING)
    await store.requeue_job(J1, 1, release=False)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=0) == Slots(1)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.lapse_slots() == ()


async def test_a_live_attempt_is_never_given_back_by_a_heartbeat(opened: OpenStore) -> None:
    store = opened.store
    await bring_to(store, JobState.DISPATCHED)
    await opened.advance(opened.almost(LEASE_MS))
    assert await store.renew_slots(N1, [], LEASE_MS, orphaned_for_ms=0) == Slots(1)
    assert await used(store) == 1


async def test_counts_come_in_the_order_asked(store: Store) -> None:
    await bring_to(store, JobState.RUNNING, J1)
    await bring_to(store, JobState.RUNNING, J2)
    await bring_to(store, JobState.RUNNING, J3, N2)
    assert await store.count_slots([N3, N2, N1, N2]) == (0, 1, 2, 1)
    assert await store.count_slots([]) == ()


async def test_every_overdue_slot_lapses_however_many_nodes_there_are(opened: OpenStore) -> None:
    store = opened.store
    nodes = [NodeId(f"n{number}") for number in range(120)]
    await asyncio.gather(*(bring_to(store, JobState.RESERVED, JobId(f"j-{node}"), node) for node in nodes))
    await opened.advance(LEASE_MS)
    assert {hold.node_id for hold in await store.lapse_slots()} == set(nodes)
    assert sum(await store.count_slots(nodes)) == 0


# --- leases of different lengths


async def test_a_short_lease_takes_no_slot_of_a_long_one_with_it(opened: OpenStore) -> None:
    store = opened.store
    await store.open_job(a_request("j1"), A, a_ranking(n1=9), 10 * LEASE_MS)
    await store.open_job(a_request("j2"), A, a_ranking(n1=9), LEASE_MS // 10)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J2, 1),)
    assert await used(store) == 1


async def test_a_short_lease_ends_in_time_beside_a_long_one(opened: OpenStore) -> None:
    store = opened.store
    await store.open_job(a_request("j1"), A, a_ranking(n1=9), 100 * LEASE_MS)
    await store.open_job(a_request("j2"), A, a_ranking(n1=9), 10 * LEASE_MS)
    await store.restore_slots(N1, [(J3, 1)], LEASE_MS)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J3, 1),)
    await opened.advance(9 * LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J2, 1),)


async def test_a_renewal_never_shortens_a_lease(opened: OpenStore) -> None:
    store = opened.store
    await store.open_job(a_request("j1"), A, a_ranking(n1=9), 10 * LEASE_MS)
    await store.open_job(a_request("j2"), A, a_ranking(n1=9), LEASE_MS)
    await store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=0)
    await store.renew_slots(N1, None, LEASE_MS, orphaned_for_ms=0)
    await opened.advance(9 * LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J2, 1),)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)


async def test_a_lease_may_last_for_weeks(opened: OpenStore) -> None:
    store = opened.store
    weeks_ms = 10**9
    await store.open_job(a_request("j1"), A, a_ranking(n1=9), weeks_ms)
    await store.restore_slots(N2, [(J1, 1)], weeks_ms)
    await store.requeue_job(J1, 1, release=False)
    await store.orphan_slot(Hold(N1, J1, 1), weeks_ms)
    await store.renew_slots(N1, [J1], weeks_ms, orphaned_for_ms=0)
    await opened.advance(opened.almost(weeks_ms))
    await store.lapse_slots()
    assert await store.count_slots([N1, N2]) == (1, 1)
