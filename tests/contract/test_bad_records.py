"""What if others wrote under our keys? It is counted, and neither stops nor harms anything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from dragoman.core.ids import JobId
from dragoman.core.lifecycle import JobState
from dragoman.store.interface import (
    Hold,
    Moved,
    NoResume,
    Owed,
    Place,
    Reserved,
    Restored,
    Resumed,
    Slots,
    Stale,
    StoreDownError,
)
from dragoman.store.redis.store import RedisStore
from dragoman.store.redis.wire import Word
from tests.support.builders import a_parked, a_ranking, a_record, a_request, a_result, an_error
from tests.support.spoiling import GARBAGE, bad, read, refused, spoil, write
from tests.support.store_steps import (
    J1,
    J2,
    J3,
    KEEP_MS,
    LEASE_MS,
    N1,
    N2,
    N3,
    S1,
    S2,
    A,
    B,
    bring_to,
    the_job,
)
from tests.support.stores import OpenStore

TOKEN, NEXT = bytes(32), b"\1" * 32


@pytest.fixture
def opened(shared: OpenStore) -> OpenStore:
    return shared


@pytest.fixture
def store(shared: OpenStore) -> RedisStore:
    assert isinstance(shared.store, RedisStore)
    return shared.store


# --- jobs

BAD_FIELDS: dict[str, dict[str, bytes]] = {
    "a schema of the future": {"v": b"2"},
    "no schema": {"v": b""},
    "a state that is none": {"state": b"DREAMING"},
    "a state that is no text": {"state": GARBAGE},
    "an attempt that is none": {"attempt": b"first"},
    "an attempt without end": {"attempt": b"9" * 5000},
    "a time that is none": {"opened_ms": b"nan"},
    "a time without end": {"opened_ms": b"inf"},
    "an owner that is no text": {"owner": GARBAGE},
    "a node that is no text": {"node": GARBAGE},
    "a request that is none": {"request": GARBAGE},
    "a request of another kind": {"request": b"\x93\x01\x02\x03"},
    "an end that is none": {"terminal": GARBAGE},
}


@pytest.mark.parametrize("fields", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
async def test_a_job_that_cannot_be_read_counts_as_missing(store: RedisStore, fields: dict[str, bytes]) -> None:
    await bring_to(store, JobState.RUNNING)
    for field, value in fields.items():
        await write(store, store._keys.job(J1), "HSET", field, value)
    before = await read(store, store._keys.job(J1), "HGETALL")
    assert await store.read_job(J1) is None
    assert bad(store) == 1
    with pytest.raises(StoreDownError, match="cannot be read"):
        await store.open_job(a_request("j1"), A, a_ranking(n2=1), LEASE_MS)
    assert await store.count_slots([N2]) == (0,)
    if "owner" not in fields:
        assert await store.adopt_job(J1, B, A) is None
    assert await read(store, store._keys.job(J1), "HGETALL") == before


async def test_a_job_of_a_schema_of_the_future_is_not_adopted(store: RedisStore) -> None:
    await bring_to(store, JobState.RUNNING)
    await write(store, store._keys.job(J1), "HSET", "v", "2")
    assert await store.adopt_job(J1, A, B) is None
    assert await read(store, store._keys.job(J1), "HGET", "owner") == b"a"


@pytest.mark.parametrize("field", ["v", "state", "attempt", "node", "owner", "opened_ms", "request", "terminal"])
@pytest.mark.parametrize("value", [None, b"", GARBAGE, b"9" * 5000])
async def test_no_verb_fails_in_an_unknown_way_for_a_bad_job(
    store: RedisStore, field: str, value: bytes | None
) -> None:
    steps: list[Callable[[JobId], Awaitable[object]]] = [
        lambda job_id: store.read_job(job_id),
        lambda job_id: store.adopt_job(job_id, A, B),
        lambda job_id: store.restore_job(a_request(job_id), A, JobState.RUNNING, 1, N1),
        lambda job_id: store.reserve_slot(job_id, 1, a_ranking(n2=100), LEASE_MS),
        lambda job_id: store.reserve_slot(job_id, 1, (), LEASE_MS),
        lambda job_id: store.advance_job(job_id, 1, N1, JobState.RUNNING),
        lambda job_id: store.requeue_job(job_id, 1, release=True),
        lambda job_id: store.open_job(a_request(job_id), A, a_ranking(n2=100), LEASE_MS),
        lambda job_id: store.idle_holds([N1]),
        lambda job_id: store.end_job(job_id, 1, None, JobState.FAILED, an_error(), release=True, keep_ms=KEEP_MS),
    ]
    for number, step in enumerate(steps):
        job_id = JobId(f"j{number}")
        await bring_to(store, JobState.DISPATCHED, job_id)
        key = store._keys.job(job_id)
        await (write(store, key, "HDEL", field) if value is None else write(store, key, "HSET", field, value))
        await refused(step(job_id))
    assert await refused(store.read_job(JobId("another"))) is False


async def test_a_key_of_another_type_in_place_of_a_job_stops_no_other_job(store: RedisStore) -> None:
    await bring_to(store, JobState.RUNNING, J1)
    await bring_to(store, JobState.RUNNING, J2)
    key = store._keys.job(J1)
    await spoil(store, key)
    before = await read(store, key, "GET")
    assert await refused(store.read_job(J1))
    assert await refused(store.adopt_job(J1, A, B))
    assert await refused(store.restore_job(a_request("j1"), A, JobState.RUNNING, 5, N1))
    assert await refused(store.advance_job(J1, 1, N1, JobState.RUNNING))
    assert await refused(store.open_job(a_request("j1"), A, a_ranking(n2=1), LEASE_MS))
    assert await refused(store.reserve_slot(J1, 1, a_ranking(n2=1), LEASE_MS))
    assert await refused(store.end_job(J1, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS))
    assert bad(store) >= 7
    assert await store.count_slots([N1, N2]) == (1, 0), "nothing is left behind"
    assert await read(store, key, "GET") == before
    assert await store.end_job(J2, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS) == Moved()


async def test_a_slot_of_a_job_that_cannot_be_read_is_idle_and_so_are_no_others(store: RedisStore) -> None:
    await bring_to(store, JobState.RUNNING, J1)
    await bring_to(store, JobState.RUNNING, J2)
    await spoil(store, store._keys.job(J1))
    assert await store.idle_holds([N1]) == (Hold(N1, J1, 1),)


async def test_a_job_that_its_owner_still_knows_is_written_over_what_cannot_be_read(store: RedisStore) -> None:
    await write(store, store._keys.job(J1), "HSET", "something", "else", "terminal", GARBAGE)
    assert await store.restore_job(a_request("j1"), A, JobState.RUNNING, 1, N1) is Restored.RESTORED
    job = await the_job(store)
    assert (job.state, job.terminal) == (JobState.RUNNING, None)


# --- slots


async def test_a_key_of_another_type_in_place_of_slots_stops_that_node_only(
    opened: OpenStore, store: RedisStore
) -> None:
    await bring_to(store, JobState.RUNNING, J1, N1)
    await bring_to(store, JobState.RUNNING, J2, N2)
    await spoil(store, store._keys.slots(N1))
    placement = await store.open_job(a_request("j3"), A, a_ranking(n1=100, n3=1), LEASE_MS)
    assert placement == Reserved(N3, 1, 1, ((N1, 100),))
    assert await store.reserve_slot(JobId("none"), 0, a_ranking(n1=1), LEASE_MS) == Stale(None, 0)
    assert await refused(store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=0))
    assert await refused(store.release_slot(N1, J1, 1))
    assert await refused(store.restore_slots(N1, [(J1, 1)], LEASE_MS))
    assert await refused(store.orphan_slot(Hold(N1, J1, 1), LEASE_MS))
    assert await refused(store.count_slots([N1]))
    assert await store.idle_holds([N1, N2, N3]) == ()
    assert await store.end_job(J1, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS) == Moved()
    await opened.advance(LEASE_MS)
    assert set(await store.lapse_slots()) == {Hold(N2, J2, 1), Hold(N3, J3, 1)}
    assert bad(store) >= 6


async def test_a_key_of_another_type_is_looked_at_once_for_leases(opened: OpenStore, store: RedisStore) -> None:
    await bring_to(store, JobState.RUNNING, J1, N1)
    await spoil(store, store._keys.slots(N1))
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == ()
    found = bad(store)
    assert await store.lapse_slots() == ()
    assert bad(store) == found >= 1


@pytest.mark.parametrize("score", [0, 1.5, -1, "inf", "-inf", 1e300])
async def test_a_hold_of_nobody_stops_no_lease(opened: OpenStore, store: RedisStore, score: Word) -> None:
    await bring_to(store, JobState.RUNNING, J1, N1)
    await write(store, store._keys.slots(N1), "ZADD", score, GARBAGE)
    assert isinstance(await store.renew_slots(N1, [J1], LEASE_MS, orphaned_for_ms=0), Slots)
    await refused(store.renew_slots(N1, None, LEASE_MS, orphaned_for_ms=0))
    await store.idle_holds([N1])
    await opened.advance(LEASE_MS)
    assert Hold(N1, J1, 1) in await store.lapse_slots()
    assert await store.lapse_slots() == ()


async def test_nodes_of_nobody_among_those_that_are_due_stop_no_lease(opened: OpenStore, store: RedisStore) -> None:
    for number in range(250):
        await write(store, store._keys.due, "ZADD", 1, GARBAGE + b"%d" % number)
    await write(store, store._keys.due, "ZADD", 1, "a node that is not there")
    await bring_to(store, JobState.RUNNING, J1, N1)
    await opened.advance(LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    assert await read(store, store._keys.due, "ZCARD") == 0
    assert bad(store) == 250


async def test_no_slot_is_taken_while_leases_cannot_be_noted(store: RedisStore) -> None:
    await spoil(store, store._keys.due)
    assert await refused(store.open_job(a_request("j1"), A, a_ranking(n1=1), LEASE_MS))
    assert await store.count_slots([N1]) == (0,)
    assert await refused(store.lapse_slots())


# --- sessions


async def test_a_session_of_a_schema_of_the_future_is_left_as_it_is(store: RedisStore) -> None:
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    key = store._keys.session(S1)
    await write(store, key, "HSET", "v", "2")
    before = await read(store, key, "HGETALL")
    assert await store.resume_session(S1, TOKEN, NEXT, B) is NoResume.UNKNOWN
    assert bad(store) == 1
    assert await read(store, key, "HGETALL") == before
    assert (await store.session_owner(S1), await store.sessions_of(B)) == (A, ())


async def test_a_session_whose_record_is_garbage_counts_as_unknown(store: RedisStore) -> None:
    await store.open_session(a_record("s1"), TOKEN, A)
    await write(store, store._keys.session(S1), "HSET", "record", GARBAGE)
    assert await store.resume_session(S1, TOKEN, NEXT, A) is NoResume.UNKNOWN
    assert bad(store) == 1


@pytest.mark.parametrize(
    "field", [b"parked:x:y", b"parked:1", b"parked:", b"parked:1:99", b"owed:j9", b"owed:" + GARBAGE, b"next", b"seq"]
)
async def test_what_cannot_be_read_of_a_session_is_left_out(store: RedisStore, field: bytes) -> None:
    await store.open_session(a_record("s1"), TOKEN, A)
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(3, 0, 0), [])
    await store.park_terminals(S1, A, [a_parked(1)], KEEP_MS)
    await write(store, store._keys.session(S1), "HSET", field, b"9" * 5000 if field in {b"next", b"seq"} else GARBAGE)
    assert await store.owed_jobs(S1) == (Owed(J1, 0, 0),)
    resumed = await store.resume_session(S1, TOKEN, NEXT, B)
    assert isinstance(resumed, Resumed)
    assert (resumed.parked, resumed.owed, resumed.place.serial) == ((a_parked(1),), (Owed(J1, 0, 0),), 3)
    assert bad(store) >= (0 if field in {b"next", b"seq"} else 1)


async def test_a_key_of_another_type_in_place_of_a_session_stops_that_session_only(store: RedisStore) -> None:
    await store.open_session(a_record("s2"), TOKEN, A)
    await spoil(store, store._keys.session(S1))
    assert await refused(store.resume_session(S1, TOKEN, NEXT, A))
    assert await refused(store.park_terminals(S1, A, [a_parked(1)], KEEP_MS))
    assert await refused(store.owed_jobs(S1))
    assert await refused(store.confirm_session(S1))
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(1, 1, 1), [])
    store.settle(S1, [J1])
    store.renew_owners(A, [], [S1, S2], KEEP_MS, KEEP_MS)
    assert isinstance(await store.resume_session(S2, TOKEN, NEXT, B), Resumed)
    await read(store, store._keys.session(S1), "EXISTS")
    assert bad(store) == 7, "by then the notes were answered too"


async def test_a_holder_that_is_no_text_is_somebody_else(store: RedisStore) -> None:
    await store.open_session(a_record("s1"), TOKEN, A)
    await write(store, store._keys.session_owner(S1), "SET", GARBAGE)
    assert await store.session_owner(S1) not in (None, A)
    assert not await store.park_terminals(S1, A, [], KEEP_MS)
    resumed = await store.resume_session(S1, TOKEN, NEXT, A)
    assert isinstance(resumed, Resumed)
    assert resumed.previous not in (None, A)
