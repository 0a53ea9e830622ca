"""What does every store promise of what the instances tell each other of their nodes?"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from dragoman.core.capability import Languages, NmtModel, NmtRule, Service
from dragoman.core.ids import InstanceId, NodeId, TenantId
from dragoman.core.language import Language
from dragoman.core.node import NodeStatus
from dragoman.store.interface import Store
from dragoman.store.registry import Changes, NodeSnapshot
from tests.support.store_steps import KEEP_MS, N1, N2, N3, A, B, a_load, a_node, a_snapshot
from tests.support.stores import OpenStore

TTL_MS = 10_000
EN, PT = Language("en"), Language("pt")


async def everything(store: Store) -> Changes:
    """What a reader that is new learns."""
    changes = await store.changes(None)
    assert changes.is_complete
    return changes


async def publish(store: Store, *snapshots: NodeSnapshot, by: InstanceId = A) -> None:
    """Tell of nodes."""
    await store.publish(by, snapshots, (), TTL_MS)


async def test_a_new_reader_gets_every_node(store: Store) -> None:
    await publish(store, a_snapshot(N1), a_snapshot(N2))
    await publish(store, a_snapshot(N3, B), by=B)
    changes = await everything(store)
    wanted = [a_snapshot(N1), a_snapshot(N2), a_snapshot(N3, B)]
    assert sorted(changes.nodes, key=lambda snapshot: snapshot.node.id) == wanted


async def test_a_new_reader_of_an_empty_store_gets_nothing(store: Store) -> None:
    assert (await everything(store)).nodes == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": NodeStatus.DRAINING, "used": 4, "load": 99.5, "is_overloaded": True},
        {"unavailable": (("nmt", 59_000), ("some-model", 1))},
        {"node": a_node(tenant=TenantId("t1"), accepts_public=False, slots=0, services=frozenset())},
        {"node": a_node(service_ids=(("whisper", Service.ASR), ("m2m", Service.NMT)))},
        {"node": a_node(languages=Languages(asr=frozenset({EN}), tts=frozenset()))},
        {
            "node": a_node(
                languages=Languages(
                    nmt=(
                        NmtModel(
                            languages=frozenset({EN, PT}),
                            rule=NmtRule.SPECIFIC_PAIRS,
                            supported=frozenset({(EN, PT)}),
                            blocked=frozenset({(PT, EN)}),
                        ),
                    )
                )
            )
        },
    ],
)
async def test_a_snapshot_is_read_as_it_was_written(store: Store, fields: dict[str, Any]) -> None:
    await publish(store, a_snapshot(N1, **fields))
    assert (await everything(store)).nodes == (a_snapshot(N1, **fields),)


async def test_a_reader_sees_each_change_once(store: Store) -> None:
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    assert await store.changes(start.cursor) == Changes(
        cursor=start.cursor, nodes=(), gone=(), loads=(), is_complete=False
    )
    await publish(store, a_snapshot(N1, status=NodeStatus.DRAINING))
    await publish(store, a_snapshot(N2))
    changes = await store.changes(start.cursor)
    assert not changes.is_complete
    assert changes.nodes == (a_snapshot(N1, status=NodeStatus.DRAINING), a_snapshot(N2))
    assert (await store.changes(changes.cursor)).nodes == ()


async def test_a_node_that_changed_often_is_read_once_as_it_is_now(store: Store) -> None:
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    for used in range(5):
        await publish(store, a_snapshot(N1, used=used))
    assert (await store.changes(start.cursor)).nodes == (a_snapshot(N1, used=4),)


async def test_a_reader_who_saw_nothing_at_first_sees_the_first_node(store: Store) -> None:
    start = await everything(store)
    await publish(store, a_snapshot(N1))
    assert (await store.changes(start.cursor)).nodes == (a_snapshot(N1),)


async def test_loads_come_in_order(store: Store) -> None:
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await store.publish(A, (), [a_load(N1, 1), a_load(N2, 2)], TTL_MS)
    await store.publish(A, [a_snapshot(N2)], [a_load(N1, 3)], TTL_MS)
    changes = await store.changes(start.cursor)
    assert changes.loads == (a_load(N1, 1), a_load(N2, 2), a_load(N1, 3))
    assert changes.nodes == (a_snapshot(N2),)
    assert (await store.changes(changes.cursor)).loads == ()


async def test_publishing_nothing_is_no_change(store: Store) -> None:
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await publish(store)
    assert (await store.changes(start.cursor)).cursor == start.cursor


async def test_only_the_owner_of_a_node_is_believed(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await publish(store, a_snapshot(N1, B), a_snapshot(N2, B), by=B)
    changes = await store.changes(start.cursor)
    assert changes.nodes == (a_snapshot(N2, B),)
    assert a_snapshot(N1) in (await everything(store)).nodes


async def test_a_node_that_changed_hands_is_the_new_owners(store: Store) -> None:
    await store.claim_node(N1, A, None, TTL_MS)
    await publish(store, a_snapshot(N1))
    await store.claim_node(N1, B, A, TTL_MS)
    await publish(store, a_snapshot(N1, B), by=B)
    await publish(store, a_snapshot(N1))
    assert (await everything(store)).nodes == (a_snapshot(N1, B),)


async def test_a_node_that_nobody_vouches_for_is_gone(opened: OpenStore) -> None:
    store = opened.store
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await publish(store, a_snapshot(N1, status=NodeStatus.OFFLINE))
    await opened.advance(TTL_MS)
    await publish(store, a_snapshot(N2))
    changes = await store.changes(start.cursor)
    assert (changes.nodes, changes.gone) == ((a_snapshot(N2),), (N1,))
    assert (await everything(store)).nodes == (a_snapshot(N2),)


async def test_a_node_that_is_renewed_stays_known(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    await publish(store, a_snapshot(N1), a_snapshot(N2))
    for _ in range(4):
        await opened.advance(TTL_MS // 2)
        store.renew_owners(A, [N1], [], TTL_MS, KEEP_MS)
    assert (await everything(store)).nodes == (a_snapshot(N1),)


async def test_who_does_not_hold_a_node_keeps_it_not_alive(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, 10 * TTL_MS)
    await publish(store, a_snapshot(N1))
    await opened.advance(TTL_MS // 2)
    store.renew_owners(B, [N1], [], 10 * TTL_MS, KEEP_MS)
    await opened.advance(TTL_MS // 2)
    assert (await everything(store)).nodes == ()


async def test_a_node_that_nobody_has_seen_for_long_is_forgotten(opened: OpenStore) -> None:
    store = opened.store
    await store.claim_node(N1, A, None, TTL_MS)
    await publish(store, a_snapshot(N1), a_snapshot(N2))
    await opened.advance(TTL_MS // 2)
    store.renew_owners(A, [N1], [], TTL_MS, KEEP_MS)
    assert await store.prune_nodes(TTL_MS) == 0
    await opened.advance(TTL_MS // 2)
    assert await store.prune_nodes(TTL_MS) == 1
    assert (await everything(store)).nodes == (a_snapshot(N1),)
    assert await store.prune_nodes(TTL_MS) == 0
    await opened.advance(TTL_MS)
    assert await store.prune_nodes(TTL_MS) == 1
    assert (await everything(store)).nodes == ()


async def test_a_forgotten_node_may_come_back(opened: OpenStore) -> None:
    store = opened.store
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await opened.advance(TTL_MS)
    await store.prune_nodes(TTL_MS)
    await publish(store, a_snapshot(N1))
    assert (await store.changes(start.cursor)).nodes == (a_snapshot(N1),)
    assert (await everything(store)).nodes == (a_snapshot(N1),)


async def test_readers_at_any_pace_see_the_same_in_the_end(store: Store) -> None:
    rng = random.Random(7)
    pictures: list[dict[NodeId, NodeSnapshot]] = [{}, {}, {}]
    cursors: list[str | None] = [None, None, None]
    for step in range(60):
        await publish(store, a_snapshot(NodeId(f"n{rng.randrange(5)}"), used=step))
        reader = rng.randrange(3)
        changes = await store.changes(cursors[reader])
        cursors[reader] = changes.cursor
        pictures[reader] |= {snapshot.node.id: snapshot for snapshot in changes.nodes}
    for reader in range(3):
        changes = await store.changes(cursors[reader])
        pictures[reader] |= {snapshot.node.id: snapshot for snapshot in changes.nodes}
    assert pictures[0] == pictures[1] == pictures[2]
    assert len(pictures[0]) == 5


async def test_a_reader_that_missed_changes_gets_every_node(store: Store) -> None:
    await publish(store, a_snapshot(N1))
    start = await everything(store)
    await publish(store, a_snapshot(N2))
    await asyncio.gather(*(store.publish(A, (), [a_load(N1, 1)], TTL_MS) for _ in range(10_300)))
    changes = await store.changes(start.cursor)
    assert changes.is_complete
    assert {snapshot.node.id for snapshot in changes.nodes} == {N1, N2}
    await publish(store, a_snapshot(N3))
    later = await store.changes(changes.cursor)
    assert (later.is_complete, later.nodes) == (False, (a_snapshot(N3),))
