"""What does every store promise of the pools that are shown?"""

from __future__ import annotations

from dragoman.core.ids import NodeId
from dragoman.store.interface import Store
from dragoman.store.registry import PoolChange, PoolRecord
from tests.support.stores import OpenStore

TTL_MS = 600_000
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("кто {там}")
EN_ZH = PoolRecord(name="en-zh", languages=("en", "zh"))
BY_HAND = PoolRecord(name="речь", pairs=("zh-en",), services=("asr", "large-v3"))


async def test_nothing_is_shown_at_first(store: Store) -> None:
    assert await store.pool_plan() is None
    assert await store.pool_members("en-zh") == frozenset()


async def test_who_joined_and_did_not_leave_is_a_member(store: Store) -> None:
    await store.publish_pools(
        None, [PoolChange("en-zh", (N1, N2), ()), PoolChange("речь", (N3,), ())], TTL_MS, renew=False
    )
    await store.publish_pools(None, [PoolChange("en-zh", (N2, N3), (N1,))], TTL_MS, renew=False)
    assert await store.pool_members("en-zh") == {N2, N3}
    assert await store.pool_members("речь") == {N3}
    await store.publish_pools(None, [PoolChange("en-zh", (), (N1, N2, N3))], TTL_MS, renew=True)
    assert await store.pool_members("en-zh") == frozenset()


async def test_the_plan_has_a_new_version_only_when_it_is_another(store: Store) -> None:
    versions = []
    for plan in ((EN_ZH,), (EN_ZH,), (EN_ZH, BY_HAND), ()):
        await store.publish_pools(plan, [], TTL_MS, renew=False)
        shown = await store.pool_plan()
        assert shown is not None
        assert shown.pools == plan
        versions.append(shown.version)
    assert versions == [1, 1, 2, 3]


async def test_a_thousand_nodes_join_at_once(store: Store) -> None:
    many = tuple(NodeId(f"n{number}") for number in range(1200))
    await store.publish_pools(None, [PoolChange("en-zh", many, ())], TTL_MS, renew=False)
    assert await store.pool_members("en-zh") == set(many)


async def test_what_nobody_renews_is_gone_after_a_while_on_a_shared_store(shared: OpenStore) -> None:
    store = shared.store
    await store.publish_pools((EN_ZH,), [PoolChange("en-zh", (N1,), ())], TTL_MS, renew=False)
    await shared.advance(shared.almost(TTL_MS))
    await store.publish_pools((EN_ZH,), [], TTL_MS, renew=True)
    await shared.advance(shared.almost(TTL_MS))
    assert await store.pool_members("en-zh") == {N1}
    assert await store.pool_plan() is not None
    await shared.advance(shared.rest_ms)
    assert await store.pool_members("en-zh") == frozenset()
    assert await store.pool_plan() is None
