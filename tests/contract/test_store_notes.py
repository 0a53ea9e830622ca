"""What does every store promise of who holds a session, where it stands and what it is owed?"""

from __future__ import annotations

import asyncio

import pytest

from dragoman.core.ids import InstanceId
from dragoman.store.interface import NOBODY, NoResume, Owed, Parked, Place, Resumed, Store
from tests.support.builders import a_parked, a_record, a_session_init
from tests.support.store_steps import J1, J2, J3, KEEP_MS, S1, S2, A, B, C
from tests.support.stores import OpenStore

FIRST, SECOND, THIRD, OTHER = (bytes([number]) * 32 for number in range(4))


async def resume(store: Store, token: bytes, following: bytes, owner: InstanceId) -> Resumed:
    """The session goes on."""
    resumed = await store.resume_session(S1, token, following, owner)
    assert isinstance(resumed, Resumed)
    return resumed


# --- who holds a session


async def test_who_opens_a_session_holds_it(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.session_owner(S1) == A
    assert await store.sessions_of(A) == (S1,)


async def test_nobody_holds_an_unknown_session(store: Store) -> None:
    assert await store.session_owner(S1) is None
    assert await store.sessions_of(A) == ()


async def test_who_resumes_a_session_holds_it_and_learns_who_did(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert (await resume(store, FIRST, SECOND, B)).previous == A
    assert await store.session_owner(S1) == B
    assert (await store.sessions_of(A), await store.sessions_of(B)) == ((), (S1,))
    assert (await resume(store, SECOND, THIRD, C)).previous == B


async def test_an_instance_may_resume_what_it_holds(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert (await resume(store, FIRST, SECOND, A)).previous == A
    assert await store.session_owner(S1) == A
    assert await store.sessions_of(A) == (S1,)


async def test_a_wrong_token_moves_no_session(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.resume_session(S1, OTHER, SECOND, B) is NoResume.WRONG_TOKEN
    assert await store.resume_session(S1, OTHER, SECOND, A) is NoResume.WRONG_TOKEN
    assert await store.session_owner(S1) == A
    assert (await store.sessions_of(A), await store.sessions_of(B)) == ((S1,), ())


async def test_a_resume_of_an_unknown_session_holds_nothing(store: Store) -> None:
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN
    assert await store.session_owner(S1) is None
    assert await store.sessions_of(A) == ()


async def test_of_two_who_resume_at_once_the_later_holds_the_session(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    first, second = await asyncio.gather(
        store.resume_session(S1, FIRST, SECOND, B), store.resume_session(S1, FIRST, THIRD, C)
    )
    assert isinstance(first, Resumed)
    assert isinstance(second, Resumed)
    assert (first.previous, second.previous) == (A, B)
    assert await store.session_owner(S1) == C
    assert (await store.sessions_of(B), await store.sessions_of(C)) == ((), (S1,))


async def test_who_parks_a_session_still_holds_it(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    await opened.advance(opened.almost(KEEP_MS))
    assert await store.session_owner(S1) == A
    await opened.advance(opened.rest_ms)
    assert await store.session_owner(S1) is None


async def test_who_held_a_session_before_parks_nothing_for_it(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    assert not await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert (await resume(store, SECOND, THIRD, B)).parked == ()


async def test_who_held_a_session_before_does_not_let_it_be_forgotten(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    assert not await store.park_terminals(S1, A, [], 1)
    await opened.advance(opened.rest_ms)
    assert (await resume(store, SECOND, THIRD, B)).previous == B


async def test_something_is_parked_for_a_session_that_nobody_holds(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    unsent = Parked(serial=0, message=a_parked(2).message)
    assert await store.park_terminals(S1, None, [unsent], KEEP_MS)
    resumed = await resume(store, FIRST, SECOND, B)
    assert resumed.parked == (a_parked(1), unsent)


async def test_something_is_parked_for_a_session_of_a_dead_instance(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.park_terminals(S1, None, [a_parked(1)], KEEP_MS, seen=A)
    assert (await resume(store, FIRST, SECOND, B)).parked == (a_parked(1),)


@pytest.mark.parametrize("seen", [A, NOBODY])
async def test_nothing_is_parked_for_a_session_that_somebody_has_resumed_meanwhile(store: Store, seen: str) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    assert not await store.park_terminals(S1, None, [a_parked(1)], 0, seen=seen)
    assert await store.session_owner(S1) == B
    assert (await resume(store, SECOND, THIRD, C)).parked == ()


async def test_what_is_parked_by_others_does_not_keep_a_session(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [], KEEP_MS)
    await opened.advance(KEEP_MS // 2)
    assert await store.park_terminals(S1, None, [a_parked(1)], KEEP_MS)
    await opened.advance(KEEP_MS // 2)
    assert not await store.park_terminals(S1, None, [a_parked(2)], KEEP_MS)
    assert await store.resume_session(S1, FIRST, SECOND, B) is NoResume.UNKNOWN


async def test_a_session_of_a_dead_instance_is_kept_for_keep_ms(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    store.renew_owners(A, [], [S1], 10 * KEEP_MS, KEEP_MS)
    assert await store.park_terminals(S1, None, [a_parked(1)], KEEP_MS)
    await opened.advance(opened.almost(KEEP_MS))
    assert await store.session_owner(S1) == A
    assert await store.park_terminals(S1, None, [a_parked(2)], KEEP_MS)
    await opened.advance(opened.rest_ms)
    assert await store.resume_session(S1, FIRST, SECOND, B) is NoResume.UNKNOWN
    assert await store.session_owner(S1) is None


@pytest.mark.parametrize("owner", [A, None])
async def test_parking_for_no_time_forgets_the_session(store: Store, owner: InstanceId | None) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.park_terminals(S1, owner, [a_parked(1)], 0)
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN
    assert await store.session_owner(S1) is None


async def test_parking_for_an_unknown_session_is_told(store: Store) -> None:
    assert not await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert not await store.park_terminals(S1, None, [a_parked(1)], KEEP_MS)


async def test_a_closed_session_is_held_by_nobody(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.open_session(a_record("s2"), FIRST, A)
    await store.close_session(S1, A)
    assert await store.session_owner(S1) is None
    assert await store.sessions_of(A) == (S2,)


async def test_who_held_a_session_before_does_not_close_it(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    await store.close_session(S1, A)
    assert await store.session_owner(S1) == B
    assert await store.sessions_of(B) == (S1,)
    await resume(store, SECOND, THIRD, B)


# --- what it is owed, and where it stands


async def test_a_session_is_owed_the_ends_of_its_jobs_in_order(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J2, 1)
    store.owe(S1, J1, 0)
    store.owe(S1, J3, 1)
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 0), Owed(J2, 1, 0), Owed(J3, 1, 0))
    assert await store.owed_jobs(S2) == ()


async def test_what_was_sent_is_owed_until_it_is_settled(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 0)
    store.owe(S1, J2, 1)
    store.note_place(S1, Place(1, 1, 0), [Owed(J1, 0, 1)])
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 1), Owed(J2, 1, 0))
    store.settle(S1, [J1])
    assert await store.owed_jobs(S1) == (Owed(J2, 1, 0),)
    store.settle(S1, [J1, J2])
    assert await store.owed_jobs(S1) == ()


async def test_owing_a_job_again_does_not_forget_that_its_end_was_sent(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(7, 1, 0), [Owed(J1, 0, 7)])
    store.owe(S1, J1, 5)
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 7),)


async def test_an_end_that_was_sent_is_owed_though_nobody_had_said_so(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.note_place(S1, Place(1, 1, 0), [Owed(J1, 0, 1)])
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 1),)


async def test_notes_of_one_moment_are_kept_in_order(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    for number in range(20):
        store.owe(S1, J1, number)
        store.note_place(S1, Place(number, number + 1, number + 2), [Owed(J1, number, number)])
        store.settle(S1, [J1])
    store.owe(S1, J2, 3)
    resumed = await resume(store, FIRST, SECOND, A)
    assert resumed.owed == (Owed(J2, 3, 0),)
    assert resumed.place == Place(19, 20, 21)


async def test_notes_that_are_let_go_at_once_stay_in_order(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.flush()
    store.owe(S1, J1, 0)
    store.flush()
    store.note_place(S1, Place(1, 1, 0), [Owed(J1, 0, 1)])
    store.owe(S1, J2, 1)
    store.flush()
    store.settle(S1, [J1])
    assert await store.owed_jobs(S1) == (Owed(J2, 1, 0),)


async def test_settling_nothing_does_no_harm(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 0)
    store.settle(S1, [])
    store.settle(S1, [J2])
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 0),)


async def test_a_resume_elsewhere_reads_what_is_owed_and_where_the_session_stands(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 4)
    store.owe(S1, J2, 5)
    store.note_place(S1, Place(9, 5, 6), [Owed(J1, 4, 9)])
    await store.park_terminals(S1, A, [a_parked(9)], KEEP_MS)
    wanted = Resumed(
        record=a_record("s1"),
        parked=(a_parked(9),),
        owed=(Owed(J1, 4, 9), Owed(J2, 5, 0)),
        place=Place(9, 5, 6),
        previous=A,
    )
    assert await resume(store, FIRST, SECOND, B) == wanted


async def test_what_is_owed_is_owed_after_a_resume_too(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 4)
    store.note_place(S1, Place(9, 5, 6), [Owed(J1, 4, 9)])
    await resume(store, FIRST, SECOND, B)
    assert await store.owed_jobs(S1) == (Owed(J1, 4, 9),)
    again = await resume(store, SECOND, THIRD, C)
    assert (again.owed, again.place) == ((Owed(J1, 4, 9),), Place(9, 5, 6))


async def test_notes_make_no_session(store: Store) -> None:
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(1, 1, 1), [Owed(J1, 0, 1)])
    store.settle(S1, [J2])
    assert await store.owed_jobs(S1) == ()
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN


async def test_a_new_session_is_owed_nothing_of_an_old_one(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 4)
    store.note_place(S1, Place(9, 5, 6), [])
    await store.close_session(S1, A)
    store.note_place(S1, Place(10, 6, 7), [Owed(J1, 4, 10)])
    await store.open_session(a_record("s1"), FIRST, B)
    resumed = await resume(store, FIRST, SECOND, B)
    assert (resumed.owed, resumed.place) == ((), Place())


# --- sessions that the store has lost


async def test_a_session_that_is_missing_is_written_again(store: Store) -> None:
    record = a_record("s1", init=a_session_init(features={"a": 1}))
    assert await store.restore_session(record, FIRST, A, Place(3, 2, 1))
    assert await store.session_owner(S1) == A
    assert await store.sessions_of(A) == (S1,)
    resumed = await resume(store, FIRST, SECOND, B)
    assert resumed == Resumed(record=record, place=Place(3, 2, 1), previous=A)


async def test_who_writes_a_session_again_holds_it(store: Store) -> None:
    assert await store.restore_session(a_record("s1"), FIRST, A, Place())
    assert await store.session_owner(S1) == A
    assert await store.sessions_of(A) == (S1,)


async def test_a_restored_session_can_be_parked_and_owed(store: Store) -> None:
    await store.restore_session(a_record("s1"), FIRST, A, Place())
    store.owe(S1, J1, 0)
    assert await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    resumed = await resume(store, FIRST, SECOND, B)
    assert (resumed.parked, resumed.owed) == ((a_parked(1),), (Owed(J1, 0, 0),))


async def test_a_session_that_is_there_stays_as_it_is(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(9, 5, 6), [])
    assert await store.restore_session(a_record("s1", trace_id="t9"), SECOND, A, Place(1, 1, 1))
    assert await store.resume_session(S1, SECOND, THIRD, A) is NoResume.WRONG_TOKEN
    resumed = await resume(store, FIRST, SECOND, A)
    assert resumed == Resumed(record=a_record("s1"), owed=(Owed(J1, 0, 0),), place=Place(9, 5, 6), previous=A)


async def test_a_session_that_another_holds_is_not_restored(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    assert not await store.restore_session(a_record("s1"), FIRST, A, Place())
    assert await store.session_owner(S1) == B
    assert (await store.sessions_of(A), await store.sessions_of(B)) == ((), (S1,))
    await resume(store, SECOND, THIRD, B)


# --- going on holding them


async def test_a_session_that_is_renewed_stays(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    for _ in range(5):
        await opened.advance(KEEP_MS)
        store.renew_owners(A, [], [S1], KEEP_MS + opened.rest_ms, KEEP_MS)
    assert await store.session_owner(S1) == A
    assert await store.sessions_of(A) == (S1,)
    await resume(store, FIRST, SECOND, B)


async def test_renewing_takes_no_session_from_another(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await resume(store, FIRST, SECOND, B)
    store.renew_owners(A, [], [S1, S2], KEEP_MS, KEEP_MS)
    assert await store.session_owner(S1) == B
    assert await store.session_owner(S2) is None
