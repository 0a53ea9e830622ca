"""Does a session bring what was asked for, to whom asked for it?"""

import asyncio
from typing import Any

import pytest

from dragoman.client import (
    Audio,
    BadAnswerError,
    DeadlineExceededError,
    InvalidMessageError,
    JobCancelledError,
    MissingResultError,
    NoAvailableNodeError,
    Partial,
    PayloadTooLargeError,
    Progress,
    QueueFullError,
    SchedulerError,
    Stage,
    TimedOutError,
    Translation,
)
from dragoman.core.ids import RequestId, SessionId, TenantId, derive_job_id
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.session_messages import (
    ClientJobCancel,
    MissingResult,
    SessionAsrPartial,
    Utterance,
)
from tests.client.fake_scheduler import event, failure, fake_scheduler, opened, result

SOUND = Audio(data=bytes(320), sample_rate=8_000)


@pytest.mark.parametrize("json", [False, True])
def test_a_text_is_translated(json: bool) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, json=json) as (session, peer):
            asking = asyncio.create_task(session.translate("Good día", priority=9, deadline_s=2))
            asked = await peer.expect(Utterance)
            assert (asked.session_id, asked.utterance_index, asked.audio_format) == ("s-1", 0, "text")
            assert (asked.src_lang, asked.tgt_lang, asked.audio) == ("en", "es", "Good día".encode())
            assert asked.pipeline == Pipeline(use_asr=False, use_nmt=True, use_tts=False)
            assert asked.priority == 9
            assert asked.deadline_ms is not None
            assert 1000 < asked.deadline_ms <= 2000
            assert peer.is_binary is not json
            timings = {"nmt_ms": 3}
            await peer.send(result(asked, tts_audio=b"\x00\xff", service_timings=timings, extra={"a": 1}))
            got = await asking
            assert (got.recognised, got.translated, got.audio) == ("Good día", "[Good día]", b"\x00\xff")
            assert (got.job_id, got.request_id, got.service_timings) == ("job-0", asked.request_id, timings)
            assert got.extra == {"a": 1}
            assert got.elapsed_s is not None
            assert 0 < got.elapsed_s < 5

    asyncio.run(story())


def test_audio_is_translated_and_spoken() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate(SOUND, src="auto", tgt="pt-BR", request_id="mine"))
            asked = await peer.expect(Utterance)
            assert (asked.audio, asked.audio_format, asked.sample_rate) == (bytes(320), "pcm16", 8_000)
            assert (asked.src_lang, asked.tgt_lang, asked.request_id) == ("auto", "pt-BR", "mine")
            assert asked.pipeline == Pipeline(use_asr=True, use_nmt=True, use_tts=True)
            await peer.send(result(asked, "hello", tts_audio=b"RIFF"))
            got = await asking
            assert (got.recognised, got.audio, got.audio_format) == ("hello", b"RIFF", "wav")

    asyncio.run(story())


def test_many_at_once_each_get_their_own_result_in_any_order() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            texts = [f"text {number}" for number in range(100)]
            asking = asyncio.gather(*map(session.translate, texts))
            asked = [await peer.expect(Utterance) for _ in texts]
            assert [utterance.utterance_index for utterance in asked] == list(range(100))
            assert len({utterance.request_id for utterance in asked}) == 100
            for utterance in reversed(asked):
                await peer.send(result(utterance))
            assert [got.translated for got in await asking] == [f"[{text}]" for text in texts]

    asyncio.run(story())


def test_no_more_are_under_way_than_may_be() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, in_flight_max=2) as (session, peer):
            asking = asyncio.gather(*(session.translate(text) for text in "abcde"))
            for _ in range(5):
                utterance = await peer.expect(Utterance)
                assert utterance.utterance_index <= sum(isinstance(seen, Utterance) for seen in peer.seen) - 1
                await peer.send(result(utterance))
            assert len(await asking) == 5
            kept = [await session.submit(text) for text in "fg"]
            with pytest.raises(TimedOutError, match="2 requests are under way"):
                await session.translate("h", timeout_s=0.05)
            assert not kept[0].is_done

    asyncio.run(story())


def test_partials_and_progress_are_told_before_the_result() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, partials=True) as (session, peer):
            utterance = await session.submit(SOUND)
            asked = await peer.expect(Utterance)
            partial = SessionAsrPartial(
                session_id="s-1", utterance_index=0, job_id="job-0", text="hel", is_final=False, trace_id="t"
            )
            await peer.send(event(0), partial, result(asked, "hello"))
            told = [update async for update in utterance.partials()]
            assert told == [
                Progress(stage=Stage.DISPATCHED, utterance_index=0, job_id="job-0", elapsed_s=0.005),
                Partial(text="hel", is_final=False, utterance_index=0, job_id="job-0"),
            ]
            assert (await utterance.result()).recognised == "hello"
            assert (utterance.job_id, utterance.is_done) == ("job-0", True)

    asyncio.run(story())


def test_follow_gives_updates_and_then_the_translation() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):

            async def collect() -> list[Any]:
                return [update async for update in session.follow("hello")]

            collecting = asyncio.create_task(collect())
            asked = await peer.expect(Utterance)
            await peer.send(event(0), result(asked))
            progress, translation = await collecting
            assert isinstance(progress, Progress)
            assert isinstance(translation, Translation)

    asyncio.run(story())


def test_a_cancelled_utterance_is_withdrawn_by_its_job_id() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            utterance = await session.submit("hello")
            await peer.expect(Utterance)
            await peer.send(event(0))
            async for _ in utterance.partials():
                break
            await utterance.cancel()
            assert (await peer.expect(ClientJobCancel)).job_id == "job-0"
            await peer.send(failure("JOB_CANCELLED", 0, job_id="job-0", retryable=False))
            with pytest.raises(JobCancelledError) as caught:
                await utterance.result()
            assert caught.value.job_id == "job-0"

    asyncio.run(story())


def test_a_job_whose_id_was_not_told_yet_is_cancelled_by_its_derived_id_and_then_by_the_told_one() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, tenant="acme") as (session, peer):
            utterance = await session.submit("hello", request_id="mine")
            await peer.expect(Utterance)
            await utterance.cancel()
            likely = derive_job_id(TenantId("acme"), SessionId("s-1"), RequestId("mine"))
            assert (await peer.expect(ClientJobCancel)).job_id == likely
            await peer.send(event(0, job_id="job-of-another-tenant"))
            assert (await peer.expect(ClientJobCancel)).job_id == "job-of-another-tenant"

    asyncio.run(story())


def test_a_caller_that_is_cancelled_withdraws_its_job() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            asking.cancel()
            await peer.expect(ClientJobCancel)
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NO_AVAILABLE_NODE", NoAvailableNodeError),
        ("QUEUE_FULL", QueueFullError),
        ("DEADLINE_EXCEEDED", DeadlineExceededError),
        ("INVALID_MESSAGE", InvalidMessageError),
        ("SOMETHING_NEW", SchedulerError),
    ],
)
def test_an_error_has_the_type_of_its_code(code: str, kind: type[SchedulerError]) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, retry=None) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            details = {"retryable": True, "retry_after_ms": 250, "reasons": {"full": 3}, "job_id": "job-0"}
            await peer.send(failure(code, 0, **details))
            with pytest.raises(kind, match=f"{code}: because of the test") as caught:
                await asking
            error = caught.value
            assert (error.code, error.retryable, error.retry_after_s, error.job_id) == (code, True, 0.25, "job-0")
            if isinstance(error, NoAvailableNodeError):
                assert (error.reasons, error.is_worth_waiting) == ({"full": 3}, True)

    asyncio.run(story())


def test_details_of_any_shape_do_no_harm() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, retry=None) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            details = {"retryable": "yes", "retry_after_ms": "soon", "reasons": [1], "job_id": 7}
            await peer.send(failure("NO_AVAILABLE_NODE", 0, **details))
            with pytest.raises(NoAvailableNodeError) as caught:
                await asking
            error = caught.value
            assert (error.retryable, error.retry_after_s, error.job_id, error.reasons) == (False, None, None, {})

    asyncio.run(story())


def test_a_missing_result_is_an_error_with_its_reason() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, retry=None) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            missing = MissingResult(session_id="s-1", utterance_index=0, reason="gap_timeout", created_at_ms=1)
            await peer.send(missing)
            with pytest.raises(MissingResultError, match="gap_timeout"):
                await asking

    asyncio.run(story())


_GARBAGE = [
    b"\xff\x00 no message",
    b"",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"type": 7}',
    b'{"type": "of tomorrow", "utterance_index": 0}',
    b'{"type": "translation_result", "utterance_index": "zero"}',
    b'{"type": "translation_result", "utterance_index": 99999999999999999999999}',
    b'{"type": "ui_event", "utterance_index": 0, "event": "NONSENSE"}',
    b'{"type": "error", "code": "X", "message": "no utterance named"}',
    b'{"type": "error", "code": "X", "message": "m", "details": {"utterance_index": "0"}}',
    b'{"type": "error", "code": "X", "message": "m", "details": {"utterance_index": 5}}',
    b'{"type": "session_init_ack"}',
    b'{"type": "session_close_ack", "session_id": "s-1"}',
    b'{"type": "server_heartbeat", "session_id": "s-1", "timestamp": 1}',
    b'{"type": "backpressure", "action": "PAUSE", "resume_after_ms": -5}',
    b'{"type": "missing_result", "session_id": "s", "utterance_index": -1, "reason": "r", "created_at_ms": 0}',
]


def test_garbage_is_passed_over_and_the_result_still_comes() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, json=True) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            asked = await peer.expect(Utterance)
            for frame in _GARBAGE:
                await peer.connection.send(frame.decode("latin-1"))
            await peer.connection.send(b"binary, where text was agreed")
            await peer.send(result(7, "never asked"), result(asked), result(asked, "twice"))
            assert (await asking).recognised == "hello"

    asyncio.run(story())


def test_a_result_that_makes_no_sense_fails_its_utterance_at_once() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, json=True) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            await peer.send_raw(b'{"type": "translation_result", "utterance_index": 0, "text_asr": 5}')
            with pytest.raises(BadAnswerError, match="Expected `str`, got `int`"):
                await asking

    asyncio.run(story())


def test_a_silent_scheduler_times_out_and_is_told_that_nobody_waits() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            with pytest.raises(TimedOutError, match=r"no result came within 0.1 s"):
                await session.translate("hello", timeout_s=0.1)
            await peer.expect(ClientJobCancel)
            with pytest.raises(TimeoutError):
                await session.translate("hello", timeout_s=0.1)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"said": "  "}, "the text is blank"),
        ({"said": "\ud800"}, "surrogates not allowed"),
        ({"said": "a", "src": "not a language"}, "is no language tag"),
        ({"said": "a", "tgt": "auto"}, "nothing can be translated into that"),
        ({"said": "a", "priority": 10}, "priority = 10"),
        ({"said": "a", "deadline_s": 0}, "deadline_s = 0"),
        ({"said": "a", "timeout_s": float("nan")}, "timeout_s = nan"),
        ({"said": "a", "request_id": ""}, "request_id of 0 characters"),
        ({"said": "a", "request_id": "x" * 241}, "request_id of 241 characters"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(arguments: dict[str, Any], said: str) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            with pytest.raises(ValueError, match=said):
                await session.translate(**arguments)
            with pytest.raises(TypeError, match="bytes given; wanted a str or an Audio"):
                await session.translate(b"raw")  # type: ignore[arg-type]
            assert len(peer.seen) == 1

    asyncio.run(story())


def test_an_utterance_too_long_for_a_message_is_refused_before_it_is_sent() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, message_bytes_max=10_000) as (session, peer):
            with pytest.raises(PayloadTooLargeError, match="wanted 10000 at most"):
                await session.translate("x" * 10_000)
            asking = asyncio.create_task(session.translate("x" * 5_000))
            await peer.send(result(await peer.expect(Utterance)))
            await asking

    asyncio.run(story())
