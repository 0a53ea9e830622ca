"""What does every store promise of sessions?"""

from __future__ import annotations

from dragoman.store.interface import NoResume, Parked, Resumed, SessionRecord, Store
from tests.support.builders import a_missing_result, a_parked, a_record, a_session_init, an_error
from tests.support.store_steps import KEEP_MS, S1, S2, A
from tests.support.stores import OpenStore

FIRST, SECOND, THIRD, OTHER = (bytes([number]) * 32 for number in range(4))


def resumed(record: SessionRecord, *parked: Parked) -> Resumed:
    """A session that goes on where it was."""
    return Resumed(record=record, parked=parked, previous=A)


async def test_a_session_goes_on_with_its_token(store: Store) -> None:
    record = a_record("s1", init=a_session_init(features={"a": 1}, auto_langs=["en", "pt"]))
    await store.open_session(record, FIRST, A)
    assert await store.resume_session(S1, FIRST, SECOND, A) == resumed(record)


async def test_an_unknown_session_does_not_go_on(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.resume_session(S2, FIRST, SECOND, A) is NoResume.UNKNOWN


async def test_a_wrong_token_opens_nothing_and_changes_nothing(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert await store.resume_session(S1, OTHER, SECOND, A) is NoResume.WRONG_TOKEN
    assert await store.resume_session(S1, SECOND, THIRD, A) is NoResume.WRONG_TOKEN
    assert await store.resume_session(S1, FIRST, SECOND, A) == resumed(a_record("s1"), a_parked(1))


async def test_the_token_of_another_session_is_wrong(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.open_session(a_record("s2"), SECOND, A)
    assert await store.resume_session(S1, SECOND, THIRD, A) is NoResume.WRONG_TOKEN


async def test_the_old_token_is_good_until_the_new_one_has_arrived(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.resume_session(S1, FIRST, SECOND, A)
    assert isinstance(await store.resume_session(S1, FIRST, THIRD, A), Resumed)


async def test_the_old_token_is_worth_nothing_after_that(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.resume_session(S1, FIRST, SECOND, A)
    await store.confirm_session(S1)
    assert await store.resume_session(S1, FIRST, THIRD, A) is NoResume.WRONG_TOKEN
    assert isinstance(await store.resume_session(S1, SECOND, THIRD, A), Resumed)


async def test_a_token_that_never_arrived_is_worth_nothing_once_another_was_made(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.resume_session(S1, FIRST, SECOND, A)
    await store.resume_session(S1, FIRST, THIRD, A)
    assert await store.resume_session(S1, SECOND, OTHER, A) is NoResume.WRONG_TOKEN
    assert isinstance(await store.resume_session(S1, THIRD, OTHER, A), Resumed)


async def test_using_the_new_token_ends_the_one_before_the_last(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.resume_session(S1, FIRST, SECOND, A)
    await store.resume_session(S1, SECOND, THIRD, A)
    assert await store.resume_session(S1, FIRST, OTHER, A) is NoResume.WRONG_TOKEN


async def test_confirming_twice_or_no_session_does_no_harm(store: Store) -> None:
    await store.confirm_session(S1)
    await store.open_session(a_record("s1"), FIRST, A)
    await store.confirm_session(S1)
    await store.confirm_session(S1)
    assert isinstance(await store.resume_session(S1, FIRST, SECOND, A), Resumed)


async def test_what_was_parked_comes_once_and_in_order(store: Store) -> None:
    parked = [
        a_parked(1),
        a_parked(2, message=an_error(details={"utterance_index": 1})),
        a_parked(3, message=a_missing_result(utterance_index=2)),
    ]
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, parked[:2], KEEP_MS)
    await store.park_terminals(S1, A, parked[2:], KEEP_MS)
    assert await store.resume_session(S1, FIRST, SECOND, A) == resumed(a_record("s1"), *parked)
    assert await store.resume_session(S1, SECOND, THIRD, A) == resumed(a_record("s1"))


async def test_what_is_parked_belongs_to_its_session(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.open_session(a_record("s2"), SECOND, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert await store.resume_session(S2, SECOND, THIRD, A) == resumed(a_record("s2"))


async def test_parking_for_an_unknown_session_makes_none(store: Store) -> None:
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN


async def test_a_session_without_a_connection_is_forgotten_after_keep_ms(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.open_session(a_record("s2"), FIRST, A)
    await store.park_terminals(S1, A, [], KEEP_MS)
    await store.park_terminals(S2, A, [], KEEP_MS + opened.rest_ms)
    await opened.advance(KEEP_MS)
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN
    assert isinstance(await store.resume_session(S2, FIRST, SECOND, A), Resumed)


async def test_parking_more_counts_from_then(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    await opened.advance(opened.almost(KEEP_MS))
    await store.park_terminals(S1, A, [a_parked(2)], KEEP_MS)
    await opened.advance(opened.almost(KEEP_MS))
    assert await store.resume_session(S1, FIRST, SECOND, A) == resumed(a_record("s1"), a_parked(1), a_parked(2))


async def test_parking_does_not_bring_a_forgotten_session_back(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [], KEEP_MS)
    await opened.advance(KEEP_MS)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN


async def test_a_session_that_went_on_is_kept(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [], KEEP_MS)
    await store.resume_session(S1, FIRST, SECOND, A)
    await opened.advance(KEEP_MS)
    await store.sweep()
    assert isinstance(await store.resume_session(S1, SECOND, THIRD, A), Resumed)


async def test_sweeping_forgets_only_what_has_passed_its_time(opened: OpenStore) -> None:
    store = opened.store
    await store.open_session(a_record("s1"), FIRST, A)
    await store.open_session(a_record("s2"), FIRST, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    await opened.advance(opened.almost(KEEP_MS))
    await store.sweep()
    assert isinstance(await store.resume_session(S1, FIRST, SECOND, A), Resumed)
    assert isinstance(await store.resume_session(S2, FIRST, SECOND, A), Resumed)
    await store.park_terminals(S1, A, [], KEEP_MS)
    await opened.advance(KEEP_MS)
    await store.sweep()
    assert await store.resume_session(S1, SECOND, THIRD, A) is NoResume.UNKNOWN
    assert isinstance(await store.resume_session(S2, SECOND, THIRD, A), Resumed)


async def test_a_closed_session_is_gone_with_all_it_was_owed(store: Store) -> None:
    await store.open_session(a_record("s1"), FIRST, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    await store.close_session(S1, A)
    await store.close_session(S1, A)
    assert await store.resume_session(S1, FIRST, SECOND, A) is NoResume.UNKNOWN
    await store.open_session(a_record("s1"), FIRST, A)
    assert await store.resume_session(S1, FIRST, SECOND, A) == resumed(a_record("s1"))
