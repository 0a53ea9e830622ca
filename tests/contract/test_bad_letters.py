"""What if others wrote where instances write to each other? It is counted, and stops nobody else."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.core.lifecycle import JobState
from dragoman.store.interface import (
    StoreDownError,
)
from dragoman.store.post import Posting
from dragoman.store.redis.store import RedisStore
from dragoman.store.registry import Instance, Renewal
from tests.support.builders import a_record, an_error
from tests.support.spoiling import GARBAGE, bad, read, read_blocked, refused, spoil, write
from tests.support.store_steps import (
    J1,
    LEASE_MS,
    N1,
    N2,
    N3,
    S1,
    A,
    B,
    a_load,
    a_snapshot,
    an_instance,
    bring_to,
)
from tests.support.stores import OpenStore

TOKEN = bytes(32)


@pytest.fixture
def opened(shared: OpenStore) -> OpenStore:
    return shared


@pytest.fixture
def store(shared: OpenStore) -> RedisStore:
    assert isinstance(shared.store, RedisStore)
    return shared.store


# --- letters


async def test_an_entry_that_is_no_letter_comes_as_one_without_a_payload(store: RedisStore) -> None:
    key = store._keys.inbox(A)
    await store.post(A, b"first", is_new_work=False)
    await write(store, key, "XADD", "*", "something", GARBAGE)
    await store.post(A, b"last", is_new_work=False)
    letters = await store.receive(A, 10, 0)
    assert [letter.payload for letter in letters] == [b"first", None, b"last"]
    assert [letter.payload for letter in await store.unacknowledged(A, B, 0, 10)] == [b"first", None, b"last"]
    store.acknowledge(A, [letter.id for letter in letters])
    assert await store.backlog(A) == 0


async def test_an_entry_that_another_deleted_stops_no_letter(store: RedisStore) -> None:
    for payload in (b"0", b"1", b"2"):
        await store.post(A, payload, is_new_work=False)
    letters = await store.receive(A, 10, 0)
    await read(store, store._keys.inbox(A), "XDEL", letters[1].id)
    assert [letter.payload for letter in await store.unacknowledged(A, A, 0, 10)] == [b"0", b"2"]


async def test_letters_outlive_the_group_that_reads_them(store: RedisStore) -> None:
    await store.post(A, b"0", is_new_work=False)
    await store.receive(A, 10, 0)
    key = store._keys.inbox(A)
    await store._servers.call(key, "XGROUP", "DESTROY", key, "scheduler")
    await store.post(A, b"1", is_new_work=False)
    assert await store.unacknowledged(A, A, 0, 10) == ()
    assert [letter.payload for letter in await store.receive(A, 10, 0)] == [b"0", b"1"]


async def test_who_waits_at_an_inbox_that_is_deleted_waits_on(store: RedisStore) -> None:
    key = store._keys.inbox(A)
    await store.receive(A, 10, 0)
    waiting = asyncio.create_task(store.receive(A, 10, 900))
    while not await read_blocked(store):
        await asyncio.sleep(0)
    await read(store, key, "DEL")
    await store.post(A, b"x", is_new_work=False)
    assert [letter.payload for letter in await waiting] == [b"x"]


async def test_a_key_of_another_type_in_place_of_an_inbox_stops_that_inbox_only(store: RedisStore) -> None:
    await spoil(store, store._keys.inbox(A))
    assert await refused(store.post(A, b"x", is_new_work=False))
    assert await refused(store.receive(A, 10, 0))
    assert await refused(store.receive(A, 10, 1))
    assert await refused(store.unacknowledged(A, B, 0, 10))
    assert await refused(store.backlog(A))
    store.acknowledge(A, ["1-1"])
    assert await store.post(B, b"x", is_new_work=False) is Posting.POSTED
    assert [letter.payload for letter in await store.receive(B, 10, 0)] == [b"x"]


async def test_a_dead_letter_of_another_program_is_shown_as_far_as_it_goes(store: RedisStore) -> None:
    await write(store, store._keys.dead_letters(A), "XADD", "*", "payload", GARBAGE, "deliveries", b"9" * 5000)
    await write(store, store._keys.dead_letters(A), "XADD", "*", "reason", GARBAGE, "first_ms", "soon")
    first, second = await store.dead_letters(A, 10)
    assert (first.payload, first.deliveries, first.reason) == (GARBAGE, 0, "")
    assert (second.payload, second.first_ms) == (b"", 0)


# --- instances and nodes


@pytest.mark.parametrize("record", [b"", GARBAGE, b"{}", b'{"v":2,"id":"b"}', b"[1]", b'{"v":1}'])
async def test_an_instance_that_cannot_be_read_is_somebody(store: RedisStore, record: bytes) -> None:
    await store.join(an_instance(A), LEASE_MS)
    await store.join(an_instance(B), LEASE_MS)
    await write(store, store._keys.presence(B), "SET", record)
    found = {name: instance for instance, name in await store.instances()}
    assert found[A] == an_instance(A)
    assert isinstance(found[B], Instance)
    assert bad(store) == 1
    assert not await store.join(an_instance(B), LEASE_MS)
    # Whose presence it was writes it again: what cannot be read is nobody's name.
    assert await store.renew(an_instance(B), LEASE_MS) is Renewal.RETURNED
    assert {name: instance for instance, name in await store.instances()}[B] == an_instance(B)


async def test_a_key_of_another_type_in_place_of_an_instance_hides_no_other(store: RedisStore) -> None:
    await store.join(an_instance(A), LEASE_MS)
    await store.join(an_instance(B), LEASE_MS)
    await write(store, store._keys.instances, "SADD", GARBAGE)
    key = store._keys.presence(B)
    await read(store, key, "DEL")
    await write(store, key, "HSET", "a", "b")
    found = {name: instance for instance, name in await store.instances()}
    assert found[A] == an_instance(A)
    assert found[B] is not None
    assert len(found) == 3
    assert bad(store) >= 1


@pytest.mark.parametrize("record", [b"", GARBAGE, b"{}", b'{"v":2}', b'{"v":1}', b"[" * 100_000])
async def test_a_node_that_cannot_be_read_hides_no_other(store: RedisStore, record: bytes) -> None:
    await store.publish(A, [a_snapshot(N1), a_snapshot(N2), a_snapshot(N3)], (), LEASE_MS)
    start = await store.changes(None)
    await store.publish(A, [a_snapshot(N1), a_snapshot(N2), a_snapshot(N3)], (), LEASE_MS)
    await write(store, store._keys.snapshot(N2), "SET", record)
    await read(store, store._keys.snapshot(N3), "DEL")
    await write(store, store._keys.snapshot(N3), "HSET", "a", "b")
    await write(store, store._keys.nodes, "SADD", GARBAGE)
    assert (await store.changes(start.cursor)).nodes == (a_snapshot(N1),)
    assert (await store.changes(None)).nodes == (a_snapshot(N1),)
    assert bad(store) >= 4


async def test_a_change_that_is_none_hides_no_other(store: RedisStore) -> None:
    await store.publish(A, [a_snapshot(N1)], (), LEASE_MS)
    start = await store.changes(None)
    key = store._keys.changes
    for fields in (("nodes", GARBAGE, "loads", b"\x90"), ("nodes", b"\x90"), ("something", "else")):
        await write(store, key, "XADD", "*", *fields)
    await store.publish(A, [a_snapshot(N2)], [a_load(N1)], LEASE_MS)
    changes = await store.changes(start.cursor)
    assert (changes.nodes, changes.loads) == ((a_snapshot(N2),), (a_load(N1),))
    assert bad(store) == 3
    assert (await store.changes(changes.cursor)).nodes == ()


async def test_a_node_that_cannot_be_published_holds_up_no_other(store: RedisStore) -> None:
    await store.publish(A, [a_snapshot(N3)], (), LEASE_MS)
    start = await store.changes(None)
    await write(store, store._keys.node_owner(N1), "HSET", "a", "b")
    await store.publish(A, [a_snapshot(N1), a_snapshot(N2)], [a_load(N2)], LEASE_MS)
    changes = await store.changes(start.cursor)
    assert (changes.nodes, changes.loads) == ((a_snapshot(N2),), (a_load(N2),))
    assert bad(store) == 1


async def test_nobody_acts_while_it_cannot_be_told_when_the_store_began(store: RedisStore) -> None:
    await write(store, store._keys.born, "SET", GARBAGE)
    with pytest.raises(StoreDownError, match="delete it"):
        await store.renew(an_instance(A), LEASE_MS)


# --- what is others'


async def test_what_others_keep_beside_us_is_left_alone(opened: OpenStore, store: RedisStore) -> None:
    first = store._keys._first
    others = [
        first + b":other",
        first + b":v1:jobs",
        first + b":v1:jobs:{job:j9",
        first + b":v1:slots:{slots}:node",
        first + b":v1:slots:{slots}:node:n9:more",
        first + b":v1:sessions:{session:s1}:more",
        first + b":streams:{instance:a}:outbox",
        first + b":v1:pool:{pool:p}:members",
    ]
    for key in others:
        await write(store, key, "SET", GARBAGE)
    await store.join(an_instance(A), 10 * LEASE_MS)
    await bring_to(store, JobState.RUNNING)
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.publish(A, [a_snapshot(N1)], (), LEASE_MS)
    await store.post(A, b"x", is_new_work=True)
    await opened.advance(LEASE_MS)
    await store.lapse_slots()
    await store.prune_nodes(1)
    await store.close_session(S1, A)
    await store.end_job(J1, 1, None, JobState.FAILED, an_error(), release=True, keep_ms=0)
    await store.leave(A)
    assert [await read(store, key, "GET") for key in others] == [GARBAGE] * len(others)
    assert bad(store) == 0


async def test_what_cannot_be_read_is_said(store: RedisStore, capsys: pytest.CaptureFixture[str]) -> None:
    await bring_to(store, JobState.RUNNING)
    await write(store, store._keys.job(J1), "HSET", "request", GARBAGE)
    await store.read_job(J1)
    said = capsys.readouterr().out
    assert "record cannot be read" in said
    assert "garbage" not in said, "there may be somebody's words in it"
