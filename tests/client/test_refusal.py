"""Does a client wait and ask again when the scheduler has no room, and give up when that is no use?"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.client import (
    InvalidMessageError,
    MissingResultError,
    NoAvailableNodeError,
    QueueFullError,
    RetryPolicy,
    TimedOutError,
)
from dragoman.client.patience import Backoff, Pace
from dragoman.protocol.session_messages import (
    Backpressure,
    MissingResult,
    SessionOutbound,
    Utterance,
)
from tests.client.fake_scheduler import failure, fake_scheduler, opened, result


def _failure(code: str, **details: Any) -> Callable[[Utterance], SessionOutbound]:
    return lambda asked: failure(code, asked.utterance_index, request_id=asked.request_id, **details)


@pytest.mark.parametrize(
    "answer",
    [
        _failure("NO_AVAILABLE_NODE", retryable=True, retry_after_ms=1, reasons={"full": 2}),
        _failure("NO_AVAILABLE_NODE", retryable=True, retry_after_ms=30_000),
        _failure("QUEUE_FULL", retryable=True, retry_after_ms=1),
        _failure("SCHEDULER_DRAINING", retryable=True),
        _failure("INTERNAL_ERROR", retryable=True),
    ],
)
def test_what_was_refused_goes_again_as_another_request_for_the_same_utterance(
    answer: Callable[[Utterance], SessionOutbound],
) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello", request_id="mine"))
            first = await peer.expect(Utterance)
            await peer.send(answer(first))
            second = await peer.expect(Utterance)
            # What is told of a request that is over, as after a resume, says nothing of the next.
            await peer.send(_failure("INVALID_MESSAGE", retryable=False)(first))
            assert second.utterance_index == first.utterance_index
            assert (first.request_id, second.request_id) == ("mine", "mine~2")
            await peer.send(result(second))
            got = await asking
            assert (got.recognised, got.request_id) == ("hello", "mine")

    asyncio.run(story())


def test_a_refusal_told_twice_without_naming_its_request_counts_once() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            refusal = failure("QUEUE_FULL", 0, retryable=True, retry_after_ms=20)
            await peer.send(refusal, refusal)
            second = await peer.expect(Utterance)
            assert (second.request_id or "").endswith("~2")
            await peer.send(result(second))
            await asking
            assert sum(isinstance(seen, Utterance) for seen in peer.seen) == 2

    asyncio.run(story())


def test_a_result_that_was_lost_is_asked_for_by_the_same_request() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            first = await peer.expect(Utterance)
            reason = "pending_overflow_evict"
            await peer.send(MissingResult(session_id="s-1", utterance_index=0, reason=reason, created_at_ms=1))
            second = await peer.expect(Utterance)
            assert (second.request_id, second.utterance_index) == (first.request_id, 0)
            await peer.send(result(second))
            await asking

    asyncio.run(story())


def test_a_job_that_fails_time_and_again_is_given_up() -> None:
    async def story() -> None:
        policy = RetryPolicy(failed_jobs_max=1)
        async with fake_scheduler() as scheduler, opened(scheduler, retry=policy) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            for _ in range(2):
                asked = await peer.expect(Utterance)
                missing = MissingResult(session_id="s-1", utterance_index=0, reason="lost", created_at_ms=1)
                await peer.send(missing if asked.utterance_index == 0 else result(asked))
            with pytest.raises(MissingResultError):
                await asking

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("QUEUE_FULL", {"retryable": True, "retry_after_ms": 60_000}, QueueFullError),
        ("QUEUE_FULL", {"retryable": False}, QueueFullError),
        (
            "NO_AVAILABLE_NODE",
            {"retryable": True, "retry_after_ms": 1, "reasons": {"language": 2}},
            NoAvailableNodeError,
        ),
        ("INVALID_MESSAGE", {"retryable": False}, InvalidMessageError),
    ],
)
def test_what_is_not_worth_another_try_in_the_time_there_is_fails_at_once(
    code: str, details: dict[str, Any], kind: type[Exception]
) -> None:
    async def story() -> None:
        policy = RetryPolicy(waits_for_nodes=False)
        async with fake_scheduler() as scheduler, opened(scheduler, retry=policy) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            await peer.send(failure(code, 0, **details))
            with pytest.raises(kind):
                await asking

    asyncio.run(story())


def test_a_result_that_comes_while_another_try_waits_is_taken() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            asked = await peer.expect(Utterance)
            await peer.send(failure("QUEUE_FULL", 0, retryable=True, retry_after_ms=4000), result(asked))
            assert (await asking).recognised == "hello"

    asyncio.run(story())


def test_the_refusal_is_told_with_the_time_out_that_followed_it() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello", timeout_s=0.2))
            await peer.expect(Utterance)
            await peer.send(failure("QUEUE_FULL", 0, retryable=True, retry_after_ms=1))
            await peer.expect(Utterance)
            with pytest.raises(TimedOutError) as caught:
                await asking
            assert isinstance(caught.value.__cause__, QueueFullError)

    asyncio.run(story())


@pytest.mark.parametrize("action", ["PAUSE", "BUSY"])
def test_nothing_new_is_sent_while_the_scheduler_wants_a_pause(action: Any) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            first = await session.submit("first")
            asked = await peer.expect(Utterance)
            await peer.send(Backpressure(action=action, resume_after_ms=200), result(asked))
            await first.result()
            began = time.monotonic()
            second = await session.submit("second")
            asked = await peer.expect(Utterance)
            assert time.monotonic() - began > 0.15
            await peer.send(result(asked))
            await second.result()

    asyncio.run(story())


def test_a_pause_is_bounded_and_a_slower_pace_spreads_utterances() -> None:
    pace = Pace()
    pace.obey(Backpressure(action="PAUSE", resume_after_ms=10**9), 0)
    assert pace.wait_s(0) == 30
    assert pace.wait_s(30) == 0
    pace.obey(Backpressure(action="SLOW_DOWN", resume_after_ms=1000), 100)
    assert pace.wait_s(100) == 0
    pace.sent(100)
    assert pace.wait_s(100) == pytest.approx(0.05)
    pace.sent(101)
    assert pace.wait_s(101) == 0
    pace.obey(Backpressure(action="BUSY"), 200)
    assert pace.wait_s(200) == 1


def test_waits_double_up_to_their_bound_and_are_spread_by_chance() -> None:
    backoff = Backoff(first_s=1, last_s=4)
    for bound_s in (1, 2, 4, 4):
        assert bound_s / 2 <= backoff.next_s() <= bound_s
    backoff.reset()
    assert backoff.next_s() <= 1
