"""What does every store promise of letters between instances?"""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from dragoman.core.ids import InstanceId
from dragoman.store.interface import Store
from dragoman.store.post import Letter, Posting
from tests.support.store_steps import J1, A, B, C, an_instance
from tests.support.stores import OpenStore

IDLE_MS = 10_000
SOON_MS = 5000
"""How long a test waits for a letter that is sure to come."""


async def post(store: Store, *payloads: bytes, to: InstanceId = A) -> None:
    """Write letters."""
    for payload in payloads:
        assert await store.post(to, payload, is_new_work=False) is Posting.POSTED


async def receive(store: Store, me: InstanceId = A, count: int = 100) -> tuple[Letter, ...]:
    """What is there."""
    return await store.receive(me, count, 0)


def payloads(letters: tuple[Letter, ...]) -> list[bytes | None]:
    """What letters say."""
    return [letter.payload for letter in letters]


def numbers(count: int) -> list[bytes]:
    """Different payloads."""
    return [b"%d" % number for number in range(count)]


# --- posting and receiving


async def test_a_letter_arrives_as_it_was_written(store: Store) -> None:
    payload = bytes(range(256)) * 50
    await post(store, payload, b"")
    letters = await receive(store)
    assert payloads(letters) == [payload, b""]
    assert [letter.deliveries for letter in letters] == [1, 1]
    assert len({letter.id for letter in letters}) == 2


async def test_letters_come_in_order(store: Store) -> None:
    await post(store, *numbers(20))
    assert payloads(await receive(store)) == numbers(20)


async def test_letters_of_one_moment_come_in_order(store: Store) -> None:
    await asyncio.gather(*(store.post(A, payload, is_new_work=True) for payload in numbers(20)))
    assert payloads(await receive(store)) == numbers(20)


async def test_no_more_letters_come_at_once_than_wanted(store: Store) -> None:
    await post(store, *numbers(5))
    assert payloads(await receive(store, count=3)) == numbers(5)[:3]
    assert payloads(await receive(store, count=3)) == numbers(5)[3:]


async def test_a_letter_comes_once(store: Store) -> None:
    await post(store, b"x")
    assert payloads(await receive(store)) == [b"x"]
    assert await receive(store) == ()


async def test_a_letter_comes_to_whom_it_was_sent(store: Store) -> None:
    await post(store, b"to a", to=A)
    await post(store, b"to b", to=B)
    assert payloads(await receive(store, B)) == [b"to b"]
    assert payloads(await receive(store, A)) == [b"to a"]
    assert await receive(store, C) == ()


async def test_whoever_waits_gets_the_next_letter(store: Store) -> None:
    waiting = asyncio.create_task(store.receive(A, 10, SOON_MS))
    await asyncio.sleep(0)
    await post(store, b"x")
    assert payloads(await waiting) == [b"x"]


async def test_whoever_waits_for_nothing_gets_nothing(store: Store) -> None:
    assert await store.receive(A, 10, 1) == ()


async def test_waiting_for_letters_holds_up_nothing_else(store: Store) -> None:
    waiting = asyncio.create_task(store.receive(A, 10, SOON_MS))
    await asyncio.sleep(0)
    assert await store.backlog(A) == 0
    assert await store.read_job(J1) is None
    assert not waiting.done()
    await post(store, b"x")
    assert payloads(await waiting) == [b"x"]


async def test_a_letter_is_as_old_as_it_is(store: Store) -> None:
    await post(store, b"x")
    (letter,) = await receive(store)
    assert 0 <= letter.age_ms < SOON_MS


# --- acknowledging


async def test_an_inbox_holds_what_was_not_seen_to(store: Store) -> None:
    assert await store.backlog(A) == 0
    await post(store, *numbers(3))
    assert await store.backlog(A) == 3
    letters = await receive(store)
    assert await store.backlog(A) == 3
    store.acknowledge(A, [letters[0].id, letters[2].id])
    assert await store.backlog(A) == 1
    store.acknowledge(A, [letters[0].id, letters[1].id])
    assert await store.backlog(A) == 0


async def test_acknowledging_nothing_does_no_harm(store: Store) -> None:
    store.acknowledge(A, [])
    await post(store, b"x")
    store.acknowledge(A, [])
    store.acknowledge(B, ["1-1"])
    assert payloads(await receive(store)) == [b"x"]


async def test_what_was_seen_to_does_not_come_again(store: Store) -> None:
    await post(store, *numbers(3))
    letters = await receive(store)
    store.acknowledge(A, [letters[1].id])
    assert payloads(await store.unacknowledged(A, A, 0, 10)) == [b"0", b"2"]


# --- letters that were not seen to


async def test_a_letter_that_was_not_seen_to_comes_again_and_tells_how_often(store: Store) -> None:
    await post(store, b"x")
    (first,) = await receive(store)
    for deliveries in (2, 3, 4):
        (again,) = await store.unacknowledged(A, A, 0, 10)
        assert structs.replace(again, age_ms=0) == structs.replace(first, age_ms=0, deliveries=deliveries)
    assert await receive(store) == ()


async def test_a_letter_comes_again_only_after_a_while(opened: OpenStore) -> None:
    store = opened.store
    await post(store, b"x")
    await receive(store)
    await opened.advance(opened.almost(IDLE_MS))
    assert await store.unacknowledged(A, A, IDLE_MS, 10) == ()
    await opened.advance(opened.rest_ms)
    assert payloads(await store.unacknowledged(A, A, IDLE_MS, 10)) == [b"x"]
    assert await store.unacknowledged(A, A, IDLE_MS, 10) == ()
    await opened.advance(IDLE_MS)
    (again,) = await store.unacknowledged(A, A, IDLE_MS, 10)
    assert again.deliveries == 3


async def test_no_more_letters_come_again_at_once_than_wanted(store: Store) -> None:
    await post(store, *numbers(5))
    await receive(store)
    assert payloads(await store.unacknowledged(A, A, 0, 3)) == numbers(3)


async def test_new_letters_of_ones_own_are_received_not_taken_over(store: Store) -> None:
    await post(store, b"x")
    assert await store.unacknowledged(A, A, 0, 10) == ()
    assert payloads(await receive(store)) == [b"x"]


async def test_an_empty_inbox_has_nothing_to_take_over(store: Store) -> None:
    assert await store.unacknowledged(A, A, 0, 10) == ()
    assert await store.unacknowledged(A, B, 0, 10) == ()


@pytest.mark.parametrize("has_received", [False, True])
async def test_an_inbox_that_nobody_reads_is_taken_over_whole_and_in_order(store: Store, has_received: bool) -> None:
    if has_received:
        assert await receive(store) == ()
    await post(store, *numbers(3))
    letters = await store.unacknowledged(A, B, 0, 10)
    assert payloads(letters) == numbers(3)
    assert [letter.deliveries for letter in letters] == [1, 1, 1]
    store.acknowledge(A, [letter.id for letter in letters])
    assert await store.backlog(A) == 0


async def test_an_inbox_is_taken_over_from_where_its_reader_stopped(store: Store) -> None:
    await post(store, *numbers(6))
    letters = await receive(store, count=4)
    store.acknowledge(A, [letter.id for letter in letters[:2]])
    taken = await store.unacknowledged(A, B, 0, 10)
    assert payloads(taken) == numbers(6)[2:]
    assert [letter.deliveries for letter in taken] == [2, 2, 1, 1]


async def test_an_inbox_is_taken_over_in_parts_and_in_order(store: Store) -> None:
    await post(store, *numbers(6))
    await receive(store, count=3)
    seen: list[bytes | None] = []
    while part := await store.unacknowledged(A, B, 0, 2):
        store.acknowledge(A, [letter.id for letter in part])
        seen += payloads(part)
    assert seen == numbers(6)


async def test_of_many_who_take_an_inbox_over_at_once_each_letter_goes_to_one(opened: OpenStore) -> None:
    store = opened.store
    await post(store, *numbers(10))
    await receive(store, count=5)
    await opened.advance(IDLE_MS)
    parts = list(await asyncio.gather(*(store.unacknowledged(A, by, IDLE_MS, 4) for by in (B, C, B))))
    while part := await store.unacknowledged(A, B, IDLE_MS, 4):
        parts.append(part)
    assert sorted(payload for part in parts for payload in payloads(part) if payload) == numbers(10)


async def test_what_another_has_just_taken_over_is_left_to_it(opened: OpenStore) -> None:
    store = opened.store
    await post(store, *numbers(4))
    await receive(store, count=2)
    await opened.advance(IDLE_MS)
    assert payloads(await store.unacknowledged(A, B, IDLE_MS, 10)) == numbers(4)
    assert await store.unacknowledged(A, C, IDLE_MS, 10) == ()
    await opened.advance(IDLE_MS)
    assert payloads(await store.unacknowledged(A, C, IDLE_MS, 10)) == numbers(4)


# --- an inbox has a bound


async def test_new_work_is_held_back_before_an_inbox_is_full(opened: OpenStore) -> None:
    store, most = opened.store, opened.inbox_max
    answers = [await store.post(A, b"x", is_new_work=True) for _ in range(most)]
    assert answers.count(Posting.POSTED) == most * 8 // 10
    assert answers[-1] is Posting.FULL
    assert await store.post(A, b"x", is_new_work=False) is Posting.POSTED
    assert await store.post(A, b"x", is_new_work=True) is Posting.FULL
    assert await store.post(B, b"x", is_new_work=True) is Posting.POSTED


async def test_nothing_is_thrown_away_for_a_new_letter(opened: OpenStore) -> None:
    store, most = opened.store, opened.inbox_max
    await post(store, *numbers(most))
    assert await store.post(A, b"more", is_new_work=False) is Posting.FULL
    letters = await receive(store, count=most)
    assert payloads(letters) == numbers(most)
    assert await store.post(A, b"more", is_new_work=False) is Posting.FULL
    store.acknowledge(A, [letters[0].id])
    assert await store.post(A, b"more", is_new_work=False) is Posting.POSTED


# --- an inbox that nobody will read any more


async def test_nothing_is_posted_to_an_inbox_that_was_closed(store: Store) -> None:
    await post(store, b"x")
    (letter,) = await receive(store)
    store.acknowledge(A, [letter.id])
    assert await store.close_inbox(A)
    assert await store.post(A, b"x", is_new_work=True) is Posting.GONE
    assert await store.post(A, b"x", is_new_work=False) is Posting.GONE
    assert await store.post(B, b"x", is_new_work=False) is Posting.POSTED
    assert await store.backlog(A) == 0


@pytest.mark.parametrize("is_read", [False, True])
async def test_an_inbox_with_letters_that_were_not_seen_to_stays_open(store: Store, is_read: bool) -> None:
    await post(store, b"x")
    if is_read:
        await receive(store)
    assert not await store.close_inbox(A)
    await post(store, b"y")
    assert await store.backlog(A) == 2


async def test_an_inbox_is_open_again_for_who_joins_under_its_name(store: Store) -> None:
    assert await store.close_inbox(A)
    assert await store.join(an_instance(A), SOON_MS)
    await post(store, b"x")
    assert payloads(await receive(store)) == [b"x"]


# --- dead letters


async def test_a_dead_letter_is_kept_with_what_is_known_of_it(store: Store) -> None:
    await post(store, b"x")
    await receive(store)
    (letter,) = await store.unacknowledged(A, A, 0, 10)
    await store.bury(A, letter, b"a part of x", "nobody wanted it")
    (dead,) = await store.dead_letters(A, 10)
    assert (dead.payload, dead.reason, dead.letter_id, dead.deliveries) == (
        b"a part of x",
        "nobody wanted it",
        letter.id,
        2,
    )
    assert 0 <= dead.last_ms - dead.first_ms < SOON_MS
    assert await store.dead_letters(B, 10) == ()


async def test_dead_letters_come_oldest_first(store: Store) -> None:
    letter = Letter(id="1-1", payload=b"x", age_ms=0)
    for payload in numbers(5):
        await store.bury(A, letter, payload, "")
    assert [dead.payload for dead in await store.dead_letters(A, 3)] == numbers(3)
    assert len({dead.id for dead in await store.dead_letters(A, 10)}) == 5


async def test_burying_a_letter_does_not_see_to_it(store: Store) -> None:
    await post(store, b"x")
    (letter,) = await receive(store)
    await store.bury(A, letter, b"x", "")
    assert await store.backlog(A) == 1
    store.acknowledge(A, [letter.id])
    assert await store.backlog(A) == 0
    assert len(await store.dead_letters(A, 10)) == 1


async def test_dead_letters_outlive_who_did_not_want_them(store: Store) -> None:
    await store.bury(A, Letter(id="1-1", payload=b"x", age_ms=0), b"x", "")
    await store.close_estate(A)
    assert len(await store.dead_letters(A, 10)) == 1
