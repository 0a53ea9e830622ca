"""What does the store of many instances promise beside the contract of all stores?"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from dragoman.core.ids import InstanceId, JobId
from dragoman.core.lifecycle import JobState
from dragoman.core.node import NodeStatus
from dragoman.protocol.session_messages import MissingResult, TranslationResult
from dragoman.store.interface import NOBODY, Hold, Known, Moved, Place, Reserved, Resumed, StoreDownError
from dragoman.store.redis.store import RedisStore
from dragoman.store.registry import Renewal
from tests.support.builders import a_parked, a_ranking, a_record, a_request, a_result, an_error
from tests.support.clock import ManualClock
from tests.support.store_steps import J1, J2, KEEP_MS, LEASE_MS, N1, N2, S1, A, B, C, a_snapshot, an_instance, bring_to
from tests.support.stores import make_redis_store, single_url
from tests.support.time_machine import age, clear

HOUR_MS = 3_600_000
OWNER_TTL_MS = 45_000
JOB_TTL_MS = 600_000
KB = 1024
TOKEN = bytes(32)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two instances over one store, whose clocks are far apart."""

    first: RedisStore
    second: RedisStore
    first_clock: ManualClock
    second_clock: ManualClock
    prefix: str


@asynccontextmanager
async def two_stores(prefix: str) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:

        async def make(clock: ManualClock) -> RedisStore:
            store = make_redis_store(
                prefix, {"url": single_url()}, clock, job_ttl_ms=JOB_TTL_MS, retained_bytes_max=100 * KB
            )
            await store.open()
            stack.push_async_callback(store.close)
            return store

        first, second = ManualClock(1_000_000_000), ManualClock(1_000_000_000 + HOUR_MS)
        pair = Pair(await make(first), await make(second), first, second, prefix)
        yield pair
        assert await clear(pair.first, prefix) == []


@pytest.fixture
def pair(runner: asyncio.Runner) -> Iterator[Pair]:
    stack = AsyncExitStack()
    yield runner.run(stack.enter_async_context(two_stores(f"test-{secrets.token_hex(8)}")))
    runner.run(stack.aclose())


# --- many instances


async def test_what_one_instance_writes_the_other_reads(pair: Pair) -> None:
    await bring_to(pair.first, JobState.RUNNING)
    answer = await pair.second.open_job(a_request("j1"), B, a_ranking(n1=9), LEASE_MS)
    assert isinstance(answer, Known)
    assert (answer.job.owner, answer.job.state) == (A, JobState.RUNNING)
    assert await pair.second.end_job(J1, 1, N1, JobState.FINISHED, a_result(), release=True, keep_ms=KEEP_MS) == Moved()
    assert (await pair.first.read_job(J1)) == (await pair.second.read_job(J1))


async def test_of_two_instances_that_open_one_job_at_once_one_does(pair: Pair) -> None:
    asked = [a_request(f"j{number}") for number in range(50)]
    ranking = a_ranking(n1=100, n2=100)
    firsts, seconds = await asyncio.gather(
        asyncio.gather(*(pair.first.open_job(request, A, ranking, LEASE_MS) for request in asked)),
        asyncio.gather(*(pair.second.open_job(request, B, ranking, LEASE_MS) for request in asked)),
    )
    for request, first, second in zip(asked, firsts, seconds, strict=True):
        job = await pair.first.read_job(request.job_id)
        assert job is not None
        assert [isinstance(answer, Known) for answer in (first, second)] == [job.owner == B, job.owner == A]
    held = [job for job in [await pair.second.read_job(it.job_id) for it in asked] if job and job.node_id]
    assert sum(await pair.first.count_slots([N1, N2])) == len(held)
    assert await pair.first.idle_holds([N1, N2]) == ()


async def test_two_instances_at_once_never_over_commit_and_give_all_back(pair: Pair) -> None:
    async def work(store: RedisStore, owner: InstanceId, number: int) -> None:
        job_id = JobId(f"{owner}{number}")
        placed: object = await store.open_job(a_request(job_id), owner, a_ranking(n1=3, n2=4), LEASE_MS)
        attempt = 0
        while not isinstance(placed, Reserved):
            placed = await store.reserve_slot(job_id, attempt, a_ranking(n1=3, n2=4), LEASE_MS)
        counts.append(await store.count_slots([N1, N2]))
        attempt = placed.attempt
        if number % 3 == 0:
            await store.requeue_job(job_id, attempt, release=True)
        await store.end_job(job_id, attempt, None, JobState.FAILED, an_error(), release=True, keep_ms=KEEP_MS)

    counts: list[tuple[int, ...]] = []
    await asyncio.gather(
        *(work(store, owner, n) for n in range(40) for store, owner in ((pair.first, A), (pair.second, B)))
    )
    assert len(counts) == 80
    assert all(first <= 3 and second <= 4 for first, second in counts)
    assert await pair.second.read_job(J1) is None
    assert await pair.first.count_slots([N1, N2]) == (0, 0)


async def test_of_two_instances_that_adopt_a_job_at_once_one_does(pair: Pair) -> None:
    for number in range(20):
        await bring_to(pair.first, JobState.RUNNING, JobId(f"j{number}"))
    adopting = [
        store.adopt_job(JobId(f"j{number}"), A, owner)
        for number in range(20)
        for store, owner in ((pair.first, B), (pair.second, C))
    ]
    jobs = await asyncio.gather(*adopting)
    for first, second in zip(jobs[::2], jobs[1::2], strict=True):
        assert first is not None
        assert second is not None
        assert first.owner == second.owner != A


async def test_the_times_of_a_request_are_those_of_the_readers_clock(pair: Pair) -> None:
    asked_ms = pair.first_clock.now_ms()
    await pair.first.open_job(a_request("j1", accepted_ms=asked_ms, deadline_ms=asked_ms + 5000), A, (), LEASE_MS)
    job = await pair.second.adopt_job(J1, A, B)
    assert job is not None
    assert job.request is not None
    assert abs(job.request.accepted_ms - pair.second_clock.now_ms()) < 4000
    assert job.request.deadline_ms == job.request.accepted_ms + 5000


async def test_a_letter_is_as_old_by_any_clock(pair: Pair) -> None:
    await pair.first.post(B, b"x", is_new_work=True)
    (letter,) = await pair.second.receive(B, 10, 0)
    assert 0 <= letter.age_ms < 4000


async def test_a_job_that_nobody_moves_is_forgotten_at_last(pair: Pair) -> None:
    await bring_to(pair.first, JobState.RUNNING)
    await age(pair.first, pair.prefix, JOB_TTL_MS - 10_000)
    assert await pair.first.adopt_job(J1, A, B) is not None
    await age(pair.first, pair.prefix, JOB_TTL_MS - 10_000)
    assert await pair.first.requeue_job(J1, 1, release=True) == Moved()
    await age(pair.first, pair.prefix, JOB_TTL_MS - 10_000)
    assert await pair.first.read_job(J1) is not None
    await age(pair.first, pair.prefix, 10_000)
    assert await pair.first.read_job(J1) is None


async def test_a_node_is_looked_at_again_when_its_next_lease_runs_out(pair: Pair) -> None:
    store, due, slots = pair.first, pair.first._keys.due, pair.first._keys.slots(N1)
    await store.restore_slots(N1, [(J1, 1)], LEASE_MS)
    await store.restore_slots(N1, [(J2, 1)], 3 * LEASE_MS)
    await age(store, pair.prefix, LEASE_MS)
    assert await store.lapse_slots() == (Hold(N1, J1, 1),)
    looked_at_ms = await store._servers.call(due, "ZSCORE", due, N1)
    assert looked_at_ms == await store._servers.call(slots, "ZSCORE", slots, J2)


async def test_something_is_parked_for_a_session_whose_holder_has_not_renewed_it(pair: Pair) -> None:
    await pair.first.open_session(a_record("s1"), TOKEN, A)
    assert not await pair.first.park_terminals(S1, None, [a_parked(1)], KEEP_MS, seen=NOBODY)
    await age(pair.first, pair.prefix, OWNER_TTL_MS)
    assert await pair.first.session_owner(S1) is None
    assert not await pair.first.park_terminals(S1, None, [a_parked(1)], KEEP_MS, seen=A)
    assert await pair.first.park_terminals(S1, None, [a_parked(1)], KEEP_MS, seen=NOBODY)
    resumed = await pair.second.resume_session(S1, TOKEN, TOKEN, B)
    assert isinstance(resumed, Resumed)
    assert (resumed.parked, resumed.previous) == ((a_parked(1),), None)


# --- what other programs read


async def test_others_can_read_which_services_of_a_node_are_ready(pair: Pair) -> None:
    store, keys = pair.first, pair.first._keys
    await store.publish(A, [a_snapshot(N1, unavailable=(("nmt", 1000),))], (), LEASE_MS)
    key = keys.capabilities(N1)
    flat = await store._servers.call(key, "HGETALL", key)
    assert dict(zip(flat[::2], flat[1::2], strict=True)) == {
        b"asr": b"true",
        b"nmt": b"false",
        b"tts": b"false",
        b"tone": b"false",
        b"semantic": b"false",
    }


@pytest.mark.parametrize("status", list(NodeStatus))
async def test_others_can_read_whether_a_node_is_there(pair: Pair, status: NodeStatus) -> None:
    store, key = pair.first, pair.first._keys.node_presence(N1)
    await store.publish(A, [a_snapshot(N1)], (), LEASE_MS)
    await store.publish(A, [a_snapshot(N1, status=status)], (), LEASE_MS)
    assert await store._servers.call(key, "EXISTS", key) == (0 if status is NodeStatus.OFFLINE else 1)


# --- an instance that was not heard of


async def test_who_was_not_heard_of_for_too_long_may_do_nothing(pair: Pair) -> None:
    store = pair.first
    await bring_to(store, JobState.RUNNING)
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.join(an_instance(A), LEASE_MS)
    store._time.valid_until_s -= LEASE_MS / 1000
    assert not store.is_up
    with pytest.raises(StoreDownError, match="announce itself first"):
        await store.end_job(J1, 1, N1, JobState.FAILED, an_error(), release=True, keep_ms=KEEP_MS)
    with pytest.raises(StoreDownError):
        await store.open_job(a_request("j2"), A, a_ranking(n1=9), LEASE_MS)
    with pytest.raises(StoreDownError):
        await store.park_terminals(S1, A, [], 0)
    with pytest.raises(StoreDownError):
        await store.release_slot(N1, J1, 1)
    assert await pair.second.read_job(J2) is None
    assert await pair.second.count_slots([N1]) == (1,)
    assert await pair.second.session_owner(S1) == A


async def test_who_was_not_heard_of_for_too_long_leaves_no_notes(pair: Pair) -> None:
    store = pair.first
    await store.open_session(a_record("s1"), TOKEN, A)
    await store.join(an_instance(A), LEASE_MS)
    store._time.valid_until_s -= LEASE_MS / 1000
    store.owe(S1, J1, 0)
    store.note_place(S1, Place(9, 9, 9), [])
    assert await store.renew(an_instance(A), LEASE_MS) is Renewal.RENEWED
    assert await pair.second.owed_jobs(S1) == ()
    store.owe(S1, J2, 1)
    await store.read_job(J1)
    assert [owed.job_id for owed in await pair.second.owed_jobs(S1)] == [J2]


async def test_who_announces_itself_anew_may_go_on(pair: Pair) -> None:
    store = pair.first
    await store.join(an_instance(A), LEASE_MS)
    store._time.valid_until_s -= LEASE_MS / 1000
    assert await store.renew(an_instance(A), LEASE_MS) is Renewal.RENEWED
    assert store.is_up
    assert await store.read_job(J1) is None


# --- a server that was started empty


@pytest.mark.slow
async def test_after_a_start_from_nothing_all_wait_until_all_have_written_what_they_know(
    pair: Pair,
) -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    renewals = await asyncio.gather(pair.first.renew(an_instance(A), 9000), pair.second.renew(an_instance(B), 9000))
    assert set(renewals) == {Renewal.RETURNED}
    assert 0.9 < loop.time() - begun_s < 5
    begun_s = loop.time()
    await pair.first.leave(A)
    assert await pair.first.renew(an_instance(A), 9000) is Renewal.RETURNED
    assert loop.time() - begun_s < 0.9


# --- what ended jobs take


async def ended(pair: Pair, name: str, audio_bytes: int = 0, **fields: str) -> None:
    """A job that ended with a result, or with an error."""
    terminal = a_result(tts_audio=b"x" * audio_bytes, **fields) if audio_bytes else an_error()
    await pair.first.open_job(a_request(name), A, (), LEASE_MS)
    ending = pair.first.end_job(JobId(name), 0, None, JobState.FAILED, terminal, release=True, keep_ms=KEEP_MS)
    assert await ending == Moved()


async def terminal_of(pair: Pair, name: str) -> object:
    """How a job ended."""
    job = await pair.first.read_job(JobId(name))
    return None if job is None else job.terminal


async def test_the_oldest_results_go_first(pair: Pair) -> None:
    names = [f"j{number}" for number in range(20)]
    for name in names:
        await ended(pair, name, 10 * KB)
    kinds = [type(await terminal_of(pair, name)) for name in names]
    assert kinds == [MissingResult] * 11 + [TranslationResult] * 9


async def test_a_result_that_went_answers_that_it_expired(pair: Pair) -> None:
    await ended(pair, "old", 80 * KB, session_id="s9", trace_id="t9")
    pair.first_clock.advance(5)
    await ended(pair, "new", 80 * KB)
    assert await terminal_of(pair, "old") == MissingResult(
        session_id="s9",
        utterance_index=0,
        reason="result_expired",
        created_at_ms=pair.first_clock.now_ms(),
        trace_id="t9",
    )


async def test_errors_keep_what_they_say(pair: Pair) -> None:
    await ended(pair, "error")
    await ended(pair, "large", 200 * KB)
    assert await terminal_of(pair, "error") == an_error()
    assert isinstance(await terminal_of(pair, "large"), MissingResult)


async def test_the_room_of_a_result_is_given_back_when_its_time_is_over(pair: Pair) -> None:
    for number in range(10):
        await ended(pair, f"j{number}", 60 * KB)
        assert isinstance(await terminal_of(pair, f"j{number}"), TranslationResult)
        pair.first_clock.advance(KEEP_MS)


async def test_a_job_that_ended_twice_is_counted_once(pair: Pair) -> None:
    for _ in range(5):
        await ended(pair, "again", 40 * KB)
        await pair.first._servers.call(b"", "DEL", pair.first._keys.job(JobId("again")))
    await ended(pair, "other", 40 * KB)
    await ended(pair, "again", 40 * KB)
    assert isinstance(await terminal_of(pair, "other"), TranslationResult)
    assert isinstance(await terminal_of(pair, "again"), TranslationResult)
