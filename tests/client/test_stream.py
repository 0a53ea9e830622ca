"""Does a stream of audio reach the scheduler whole, and come back as translations, all of them?"""

import asyncio

import pytest

from dragoman.client import (
    AudioError,
    AudioStream,
    DragomanError,
    MixedUseError,
    Partial,
    QueueFullError,
    SessionEndedError,
    SessionLostError,
    TimedOutError,
    Translation,
)
from dragoman.protocol.session_messages import AudioChunk, ClientHeartbeat, SessionAsrPartial, UiEventKind
from tests.client.fake_scheduler import Peer, event, failure, fake_scheduler, opened, result

SECOND = bytes(32_000)


async def _collect(stream: AudioStream) -> list[str]:
    return [translation.recognised async for translation in stream]


async def _chunks(peer: Peer, count: int) -> list[AudioChunk]:
    return [await peer.expect(AudioChunk) for _ in range(count)]


def test_audio_goes_in_numbered_chunks_and_results_come_by_the_schedulers_numbers() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            async with session.stream_audio() as stream:
                assert stream.sample_rate == 16_000
                await stream.send(SECOND + b"\x01\x02")
                stream.end_utterance()
                await stream.send(SECOND)
            chunks = await _chunks(peer, 5)
            assert [chunk.seq for chunk in chunks] == [0, 1, 2, 3, 4]
            assert [chunk.is_final for chunk in chunks] == [False, False, True, False, True]
            assert b"".join(chunk.payload or b"" for chunk in chunks) == SECOND + b"\x01\x02" + SECOND
            await peer.send(event(0, UiEventKind.INPUT_ENDED), event(1, UiEventKind.INPUT_ENDED))
            collecting = asyncio.create_task(_collect(stream))
            await peer.send(result(0, "one"), result(1, "two"), result(1, "twice"))
            assert await collecting == ["one", "two"]

    asyncio.run(story())


def test_results_can_be_read_while_audio_is_sent() -> None:
    async def story() -> None:
        async with (
            fake_scheduler() as scheduler,
            opened(scheduler) as (session, peer),
            session.stream_audio() as stream,
        ):
            await stream.send(SECOND)
            await _chunks(peer, 1)
            await peer.send(result(0, "early"))
            assert (await anext(stream)).recognised == "early"
            await stream.send(SECOND)

    asyncio.run(story())


def test_a_stream_without_speech_ends_without_results() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, _):
            async with session.stream_audio() as stream:
                pass
            assert await _collect(stream) == []

    asyncio.run(story())


def test_partials_of_a_stream_are_told() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            async with session.stream_audio() as stream:
                await stream.send(SECOND)
            await _chunks(peer, 2)
            partial = SessionAsrPartial(
                session_id="s-1", utterance_index=0, job_id="job-0", text="hel", is_final=False, trace_id="t"
            )
            await peer.send(partial, result(0, "hello"))
            assert await _collect(stream) == ["hello"]
            told = [update async for update in stream.partials()]
            assert told == [Partial(text="hel", is_final=False, utterance_index=0, job_id="job-0")]

    asyncio.run(story())


def test_an_utterance_that_failed_raises_and_the_next_ones_still_come() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            async with session.stream_audio() as stream:
                await stream.send(SECOND)
            await _chunks(peer, 2)
            await peer.send(event(1), failure("QUEUE_FULL", 0, retryable=True), result(1, "two"))
            with pytest.raises(QueueFullError):
                await anext(stream)
            assert await _collect(stream) == ["two"]

    asyncio.run(story())


def test_chunks_that_may_be_lost_are_sent_again_after_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.client.feed._DOUBT_S", 0.1)

    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, heartbeat_s=0.02) as (session, peer):
            stream = session.stream_audio()
            await stream.send(SECOND * 2)
            await _chunks(peer, 2)
            await peer.expect(ClientHeartbeat)
            await stream.send(b"\x07\x00")
            peer.answers_heartbeats = False
            await _chunks(peer, 1)
            await peer.cut()
            stream.finish()
            peer = await scheduler.peer()
            await peer.welcome(token="t-2")
            again = await peer.expect(AudioChunk)
            assert again.payload == b"\x07\x00" or again.seq < 2
            while not again.is_final:
                again = await peer.expect(AudioChunk)
            await peer.send(result(0, "whole"))
            # News of a last utterance may have been lost with the connection: it is waited for, for a moment.
            assert await _collect(stream) == ["whole"]

    asyncio.run(story())


def test_a_heartbeat_that_was_lost_with_its_connection_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.client.feed._DOUBT_S", 0.1)

    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            peer.answers_heartbeats = False
            stream = session.stream_audio()
            await stream.send(SECOND * 10)
            await peer.expect(ClientHeartbeat)
            await peer.cut()
            stream.finish()
            await (await scheduler.peer()).welcome(token="t-2")
            assert await _collect(stream) == []

    asyncio.run(story())


def test_no_more_audio_is_on_its_way_than_may_be() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            peer.answers_heartbeats = False
            stream = session.stream_audio()
            sending = asyncio.create_task(stream.send(SECOND * 100))
            chunks = await _chunks(peer, 32)
            done, _ = await asyncio.wait([sending], timeout=0.1)
            assert not done
            assert len(chunks) == sum(isinstance(seen, AudioChunk) for seen in peer.seen)
        with pytest.raises(SessionEndedError):
            await sending

    asyncio.run(story())


def test_much_audio_goes_through_when_the_scheduler_keeps_up() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            async with session.stream_audio() as stream:
                await stream.send(SECOND * 100)
            chunks = await _chunks(peer, 101)
            assert [chunk.seq for chunk in chunks] == list(range(101))

    asyncio.run(story())


def test_a_lost_session_ends_its_stream_with_an_error_that_says_so() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            stream = session.stream_audio()
            await stream.send(SECOND)
            await peer.cut()
            await (await scheduler.peer()).refuse("INVALID_SESSION")
            await (await scheduler.peer()).welcome("s-2")
            with pytest.raises(SessionLostError):
                await anext(stream)
            with pytest.raises(SessionLostError):
                await stream.send(SECOND)

    asyncio.run(story())


def test_a_scheduler_that_stays_silent_after_the_end_times_out() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            async with session.stream_audio(timeout_s=0.1) as stream:
                await stream.send(SECOND)
            await _chunks(peer, 2)
            await peer.send(event(0))
            with pytest.raises(TimedOutError, match="after the end of the audio"):
                await anext(stream)

    asyncio.run(story())


def test_a_session_carries_utterances_or_a_stream_and_says_so() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            async with opened(scheduler) as (session, _):
                await session.submit("hello")
                with pytest.raises(MixedUseError, match="open another one to stream"):
                    session.stream_audio()
            async with opened(scheduler) as (session, _):
                session.stream_audio()
                with pytest.raises(MixedUseError, match="open another one for whole utterances"):
                    await session.translate("hello")
                with pytest.raises(MixedUseError, match="has its stream already"):
                    session.stream_audio()

    asyncio.run(story())


def test_half_a_sample_and_audio_after_the_end_are_refused() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, _):
            async with session.stream_audio() as stream:
                with pytest.raises(AudioError, match="3 bytes of audio"):
                    await stream.send(b"abc")
            with pytest.raises(SessionEndedError, match="the stream is finished"):
                await stream.send(b"ab")
            assert issubclass(SessionEndedError, DragomanError)
            assert not isinstance(stream, Translation)

    asyncio.run(story())
