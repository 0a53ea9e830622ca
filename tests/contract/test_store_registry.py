"""What does every store promise of who is there: instances, and who holds which node?"""

from __future__ import annotations

import asyncio

from dragoman.core.ids import InstanceId
from dragoman.store.interface import Store
from dragoman.store.post import Posting
from dragoman.store.registry import Renewal
from tests.support.builders import a_record
from tests.support.store_steps import KEEP_MS, N1, N2, S1, S2, A, B, C, an_instance
from tests.support.stores import OpenStore

TTL_MS = 10_000
LONG_MS = 1_000_000
TOKEN = bytes(32)


async def names(store: Store) -> tuple[set[InstanceId], set[InstanceId]]:
    """Who lives, and who does not any more."""
    found = await store.instances()
    assert all(instance is None or instance.id == name for instance, name in found)
    alive = {name for instance, name in found if instance is not None}
    return alive, {name for instance, name in found if instance is None}


# --- instances


async def test_who_joins_is_there_with_what_he_says_of_himself(store: Store) -> None:
    assert await store.join(an_instance(A, "10.0.0.1:9000"), TTL_MS)
    assert await store.join(an_instance(B, "10.0.0.2:9000"), TTL_MS)
    found = {name: instance for instance, name in await store.instances()}
    assert found == {A: an_instance(A, "10.0.0.1:9000"), B: an_instance(B, "10.0.0.2:9000")}


async def test_nobody_is_there_at_first(store: Store) -> None:
    assert await store.instances() == ()


async def test_an_id_in_use_is_taken(store: Store) -> None:
    assert await store.join(an_instance(A, "10.0.0.1:9000"), TTL_MS)
    assert not await store.join(an_instance(A, "10.0.0.2:9000"), TTL_MS)
    assert await store.instances() == ((an_instance(A, "10.0.0.1:9000"), A),)


async def test_who_does_not_renew_is_dead_and_still_listed(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    await opened.advance(opened.almost(TTL_MS))
    assert await names(store) == ({A, B}, set())
    await opened.advance(opened.rest_ms)
    assert await names(store) == ({B}, {A})


async def test_who_renews_lives_on(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    for _ in range(5):
        await opened.advance(TTL_MS // 2)
        assert await store.renew(an_instance(A), TTL_MS) is Renewal.RENEWED
    assert await names(store) == ({A, B}, set())


async def test_who_comes_back_after_its_time_is_told_so(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await opened.advance(TTL_MS)
    assert await store.renew(an_instance(A), TTL_MS) is Renewal.RETURNED
    assert await store.renew(an_instance(A), TTL_MS) is Renewal.RENEWED
    assert await names(store) == ({A}, set())


async def test_a_store_that_lost_everything_knows_nobody(store: Store) -> None:
    assert await store.renew(an_instance(A), TTL_MS) is Renewal.RETURNED
    assert await names(store) == ({A}, set())


async def test_an_id_that_another_has_by_now_is_taken(opened: OpenStore) -> None:
    store = opened.store
    first, second = an_instance(A, "10.0.0.1:9000"), an_instance(A, "10.0.0.2:9000")
    await store.join(first, TTL_MS)
    await opened.advance(TTL_MS)
    assert await store.join(second, TTL_MS)
    assert await store.renew(first, TTL_MS) is Renewal.TAKEN
    assert await store.renew(second, TTL_MS) is Renewal.RENEWED
    assert await store.instances() == ((second, A),)


async def test_who_leaves_is_not_listed_and_leaves_nothing(store: Store) -> None:
    await store.join(an_instance(A), TTL_MS)
    await store.open_session(a_record("s1"), TOKEN, B)
    assert await store.post(A, b"letter", is_new_work=True) is Posting.POSTED
    await store.leave(A)
    assert await store.renew(an_instance(B), TTL_MS) is Renewal.RETURNED
    assert await names(store) == ({B}, set())
    assert await store.backlog(A) == 0
    assert await store.sessions_of(B) == (S1,)


async def test_it_can_be_asked_of_one_instance_whether_it_lives(opened: OpenStore) -> None:
    store = opened.store
    assert not await store.is_alive(A)
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    assert await store.is_alive(A)
    await opened.advance(TTL_MS)
    assert (await store.is_alive(A), await store.is_alive(B)) == (False, True)
    await store.renew(an_instance(A), LONG_MS)
    assert await store.is_alive(A)
    await store.leave(A)
    assert not await store.is_alive(A)


# --- what a dead instance left


async def test_one_at_a_time_sees_to_an_estate(opened: OpenStore) -> None:
    store = opened.store
    assert [await store.claim_estate(A, by, TTL_MS) for by in (B, C, B)] == [True, False, True]
    await opened.advance(opened.almost(TTL_MS))
    assert not await store.claim_estate(A, C, TTL_MS)
    await opened.advance(opened.rest_ms)
    assert await store.claim_estate(A, C, TTL_MS)
    assert not await store.claim_estate(A, B, TTL_MS)


async def test_of_many_who_claim_an_estate_at_once_one_does(store: Store) -> None:
    claims = await asyncio.gather(*(store.claim_estate(A, InstanceId(f"i{n}"), TTL_MS) for n in range(10)))
    assert claims.count(True) == 1


async def test_an_estate_of_each_dead_instance_is_claimed_alone(store: Store) -> None:
    assert await store.claim_estate(A, C, TTL_MS)
    assert await store.claim_estate(B, C, TTL_MS)


async def test_the_sessions_of_a_dead_instance_are_known(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.open_session(a_record("s2"), TOKEN, A)
    await opened.advance(TTL_MS)
    assert set(await store.sessions_of(A)) == {S1, S2}


async def test_a_closed_estate_leaves_nothing_of_the_dead(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    await store.post(A, b"letter", is_new_work=True)
    await opened.advance(TTL_MS)
    await store.claim_estate(A, B, TTL_MS)
    await store.close_estate(A)
    assert await names(store) == ({B}, set())
    assert await store.backlog(A) == 0
    assert await store.claim_estate(A, C, TTL_MS)


async def test_closing_an_estate_harms_nobody_who_came_back(opened: OpenStore) -> None:
    store = opened.store
    await store.join(an_instance(A), TTL_MS)
    await store.join(an_instance(B), LONG_MS)
    await opened.advance(TTL_MS)
    await store.claim_estate(A, B, TTL_MS)
    await store.renew(an_instance(A), LONG_MS)
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.post(A, b"letter", is_new_work=True)
    await store.close_estate(A)
    assert await names(store) == ({A, B}, set())
    assert await store.sessions_of(A) == (S1,)
    assert await store.backlog(A) == 1


# --- who holds a node


async def test_who_claims_a_node_holds_it(store: Store) -> None:
    assert await store.node_owner(N1) is None
    assert await store.claim_node(N1, A, None, TTL_MS) is None
    assert await store.node_owner(N1) == A
    assert await store.node_owner(N2) is None


async def test_a_node_that_another_holds_is_not_claimed(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    assert await store.claim_node(N1, B, None, TTL_MS) == A
    assert await store.claim_node(N1, B, C, TTL_MS) == A
    assert await store.node_owner(N1) == A


async def test_a_node_is_taken_from_who_has_lost_it(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    assert await store.claim_node(N1, B, A, TTL_MS) is None
    assert await store.node_owner(N1) == B
    assert await store.claim_node(N1, A, None, TTL_MS) == B


async def test_a_node_is_claimed_again_by_its_holder(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    await opened.advance(opened.almost(TTL_MS))
    assert await store.claim_node(N1, A, None, TTL_MS) is None
    await opened.advance(opened.almost(TTL_MS))
    assert await store.node_owner(N1) == A


async def test_of_many_who_claim_a_node_at_once_one_does(store: Store) -> None:
    ids = [InstanceId(f"i{number}") for number in range(10)]
    answers = await asyncio.gather(*(store.claim_node(N1, by, None, TTL_MS) for by in ids))
    assert answers.count(None) == 1
    holder = await store.node_owner(N1)
    assert {answer for answer in answers if answer is not None} == {holder}


async def test_a_node_that_nobody_renews_is_free(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    await opened.advance(opened.almost(TTL_MS))
    assert await store.claim_node(N1, B, None, TTL_MS) == A
    await opened.advance(opened.rest_ms)
    assert await store.node_owner(N1) is None
    assert await store.claim_node(N1, B, None, TTL_MS) is None


async def test_a_released_node_is_free(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    await store.release_node(N1, A)
    await store.release_node(N1, A)
    assert await store.node_owner(N1) is None


async def test_an_old_holder_releases_no_claim_of_a_newer_one(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    await store.claim_node(N1, B, A, TTL_MS)
    await store.release_node(N1, A)
    assert await store.node_owner(N1) == B


async def test_a_node_that_is_renewed_stays_with_its_holder(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    for _ in range(5):
        await opened.advance(TTL_MS // 2)
        store.renew_owners(A, [N1], [], TTL_MS, KEEP_MS)
    assert await store.node_owner(N1) == A


async def test_an_old_holder_renews_no_claim_of_a_newer_one(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    await store.claim_node(N1, B, A, TTL_MS)
    store.renew_owners(A, [N1], [], LONG_MS, KEEP_MS)
    assert await store.node_owner(N1) == B
    await opened.advance(TTL_MS)
    assert await store.node_owner(N1) is None


async def test_a_claim_that_the_store_lost_comes_back_with_the_next_renewal(store: Store) -> None:
    store.renew_owners(A, [N1, N2], [], TTL_MS, KEEP_MS)
    assert (await store.node_owner(N1), await store.node_owner(N2)) == (A, A)


async def test_the_store_is_up(store: Store) -> None:
    assert store.is_up
