"""What does every store promise of who lives, and of what lies ready for a session?"""

from __future__ import annotations

from dragoman.core.ids import SessionId
from dragoman.store.interface import Resumed, Store
from tests.support.builders import a_parked, a_record
from tests.support.store_steps import A, B, an_instance
from tests.support.stores import OpenStore

S1 = SessionId("s1")
TOKEN, NEXT = b"token", b"next"
KEEP_MS = 60_000
TTL_MS = 10_000


async def test_an_instance_lives_from_its_announcement_until_it_leaves(store: Store) -> None:
    assert not await store.is_alive(A)
    await store.join(an_instance(A), TTL_MS)
    assert await store.is_alive(A)
    assert not await store.is_alive(B)
    await store.leave(A)
    assert not await store.is_alive(A)


async def test_an_instance_that_is_not_heard_of_does_not_live(opened: OpenStore) -> None:
    await opened.store.join(an_instance(A), TTL_MS)
    await opened.advance(TTL_MS + opened.rest_ms)
    assert not await opened.store.is_alive(A)


async def test_what_is_parked_for_a_session_is_known_until_a_resume_takes_it(store: Store) -> None:
    assert not await store.has_parked(S1)
    await store.open_session(a_record("s1"), TOKEN, A)
    assert not await store.has_parked(S1)
    await store.park_terminals(S1, None, [a_parked(1)], KEEP_MS)
    assert await store.has_parked(S1)
    assert isinstance(await store.resume_session(S1, TOKEN, NEXT, B), Resumed)
    assert not await store.has_parked(S1)
