"""The whole instance in fake time: the order of results, lost connections, resumes, the end of a session."""

from __future__ import annotations

import asyncio

from dragoman.protocol.session_messages import (
    AudioChunk,
    SessionCloseAck,
    SessionInit,
    SessionInitAck,
    UiEvent,
    UiEventKind,
)
from tests.support.fake_time import run_in_fake_time
from tests.support.world import FakeNode, FakeSession, World, a_world


def test_results_go_out_in_order_and_wait_for_earlier_ones_only_so_long() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=9), await world.session()
            for _ in range(3):
                session.speak()
            await asyncio.sleep(0.01)
            slow, second, third = node.jobs
            node.ack(slow)
            node.finish(third)
            await asyncio.sleep(1)
            node.finish(second)
            await asyncio.sleep(0.9)
            assert session.results == []
            await asyncio.sleep(0.2)
            assert [index for index, _ in session.terminals] == [1, 2]
            node.finish(slow)
            await asyncio.sleep(0.01)
            assert [index for index, _ in session.terminals] == [1, 2, 0]

    run_in_fake_time(story())


def test_an_index_that_the_client_skipped_is_reported_missing() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=9), await world.session()
            for index in (0, 2):
                session.speak(utterance_index=index)
            await asyncio.sleep(0.01)
            for job in node.jobs:
                node.finish(job)
            await asyncio.sleep(1.9)
            assert session.terminals == [(0, "result")]
            await asyncio.sleep(0.2)
            assert session.terminals == [(0, "result"), (1, "gap_timeout"), (2, "result")]

    run_in_fake_time(story())


def test_an_error_is_told_at_once_and_holds_nobody_back() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=9), await world.session()
            session.speak()
            session.speak(tgt_lang="pt", src_lang="en", deadline_ms=0)
            session.speak()
            await asyncio.sleep(0.01)
            assert session.terminals == [(1, "DEADLINE_EXCEEDED")]
            for job in node.jobs:
                node.finish(job)
            await asyncio.sleep(0.01)
            assert session.terminals == [(1, "DEADLINE_EXCEEDED"), (0, "result"), (2, "result")]

    run_in_fake_time(story())


async def _resumed(world: World, token: str, terminals_received: int | None = None) -> FakeSession:
    again = FakeSession(world)
    again.say(
        SessionInit(
            client_version="1",
            platform="test",
            src_lang="en",
            tgt_lang="pt",
            resume_token=token,
            terminals_received=terminals_received,
        )
    )
    await asyncio.sleep(0.01)
    return again


async def _with_result_on_the_way(world: World) -> tuple[FakeNode, FakeSession, str]:
    node, session = await world.node(slots=9), await world.session()
    session.speak()
    node.ack(await node.gets_job())
    return node, session, session.ack.resume_token


def test_a_resumed_session_gets_what_ended_while_it_was_away() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            session.hang_up()
            await asyncio.sleep(5)
            node.finish(node.jobs[0], "meanwhile")
            await asyncio.sleep(5)
            again = await _resumed(world, token)
            assert again.ack.session_id == session.ack.session_id
            assert [result.text_translated for result in again.results] == ["meanwhile"]
            again.speak(utterance_index=1)
            node.finish(await node.gets_job(2), "and on")
            await asyncio.sleep(0.01)
            assert [result.text_translated for result in again.results] == ["meanwhile", "and on"]

    run_in_fake_time(story())


def test_a_result_that_was_sent_into_a_dead_socket_comes_again() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            session.connection.answers_pings = False
            node.finish(node.jobs[0], "perhaps lost")
            await asyncio.sleep(3)
            session.hang_up()
            again = await _resumed(world, token)
            assert [result.text_translated for result in again.results] == ["perhaps lost"]

    run_in_fake_time(story())


def test_a_result_that_the_client_has_had_does_not_come_again() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            node.finish(node.jobs[0])
            await asyncio.sleep(2)
            session.hang_up()
            assert (await _resumed(world, token)).results == []

    run_in_fake_time(story())


def test_a_client_that_says_how_much_it_has_had_is_believed() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            session.connection.answers_pings = False
            node.finish(node.jobs[0])
            session.speak()
            node.finish(await node.gets_job(2), "second")
            await asyncio.sleep(0.01)
            session.hang_up()
            again = await _resumed(world, token, terminals_received=1)
            assert [result.text_translated for result in again.results] == ["second"]

    run_in_fake_time(story())


def test_a_resume_token_is_good_once_and_the_ack_brings_the_next() -> None:
    async def story() -> None:
        async with a_world() as world:
            session = await world.session()
            first = session.ack.resume_token
            session.hang_up()
            again = await _resumed(world, first)
            second = again.ack.resume_token
            assert second != first
            again.hang_up()
            thief = await _resumed(world, first)
            assert [error.code for error in thief.errors] == ["INVALID_SESSION"]
            assert (await _resumed(world, second)).all(SessionInitAck)

    run_in_fake_time(story())


def test_an_ack_lost_on_the_way_locks_nobody_out() -> None:
    async def story() -> None:
        async with a_world() as world:
            session = await world.session()
            token = session.ack.resume_token
            session.hang_up()
            lost = FakeSession(world)
            lost.connection.answers_pings = False
            lost.say_raw(_init(token))
            await asyncio.sleep(0.01)
            lost.hang_up()
            again = await _resumed(world, token)
            assert again.ack.session_id == session.ack.session_id

    run_in_fake_time(story())


def _init(token: str) -> bytes:
    return (
        b'{"type":"session_init","client_version":"1","platform":"t","src_lang":"en","tgt_lang":"pt","resume_token":"%s"}'
        % token.encode()
    )


def test_a_guessed_token_opens_nothing() -> None:
    async def story() -> None:
        async with a_world() as world:
            session = await world.session()
            for guess in ("", "x", f"{session.ack.session_id}.guess", "s-0.0"):
                stranger = FakeSession(world)
                stranger.say_raw(_init(guess or "."))
                await asyncio.sleep(0.01)
                assert [error.code for error in stranger.errors] == ["INVALID_SESSION"]
            assert session.closed is None

    run_in_fake_time(story())


def test_a_second_connection_of_a_session_takes_over_from_the_first() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            again = await _resumed(world, token)
            assert session.closed == 1000
            node.finish(node.jobs[0])
            await asyncio.sleep(0.01)
            assert len(again.results) == 1
            assert session.results == []

    run_in_fake_time(story())


def test_a_session_that_does_not_come_back_is_over_and_its_jobs_are_cancelled() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout_seconds=300) as world:
            node, session, token = await _with_result_on_the_way(world)
            session.hang_up()
            await asyncio.sleep(30)
            node.heartbeat()
            await asyncio.sleep(28)
            node.heartbeat()
            assert node.cancels == []
            await asyncio.sleep(4)
            assert len(node.cancels) == 1
            late = await _resumed(world, token)
            assert [error.code for error in late.errors] == ["INVALID_SESSION"]

    run_in_fake_time(story())


def test_a_silent_session_is_sent_away_and_can_resume() -> None:
    async def story() -> None:
        async with a_world() as world:
            session, lively = await world.session(), await world.session()
            session.connection.answers_pings = False
            await asyncio.sleep(179)
            assert session.closed != 1001
            await asyncio.sleep(3)
            assert session.closed == 1001
            assert lively.closed is None, "who answers pings is not silent"
            assert (await _resumed(world, session.ack.resume_token)).all(SessionInitAck)

    run_in_fake_time(story())


def test_closing_a_session_cancels_what_runs_and_tells_so_before_the_ack() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, token = await _with_result_on_the_way(world)
            session.say_raw(
                b'{"type":"session_close","session_id":"%s","reason":"bye"}' % session.ack.session_id.encode()
            )
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "JOB_CANCELLED")]
            assert isinstance(session.heard[-1], SessionCloseAck)
            assert session.closed == 1000
            assert len(node.cancels) == 1
            assert [error.code for error in (await _resumed(world, token)).errors] == ["INVALID_SESSION"]

    run_in_fake_time(story())


def test_audio_in_chunks_becomes_utterances_at_final_chunks_at_the_longest_duration_and_at_pauses() -> None:
    async def story() -> None:
        async with a_world(
            scheduler__web_task_segmentation__max_duration_ms=1000, scheduler__web_task_segmentation__pause_ms=500
        ) as world:
            node, session = await world.node(slots=9), await world.session()
            second = bytes(32_000)
            _chunk(session, 0, second[:1000])
            _chunk(session, 1, b"", is_final=True)
            _chunk(session, 2, second + second[:500])
            await asyncio.sleep(1)
            assert [len(job.audio) for job in node.jobs] == [1000, 32_000, 500]
            assert [job.utterance_index for job in node.jobs] == [0, 1, 2]
            flags = [(job.is_manual_cut, job.is_timeout_triggered, job.is_pause_triggered) for job in node.jobs]
            assert flags == [(True, None, None), (None, True, None), (None, None, True)]
            assert {job.audio_format for job in node.jobs} == {"pcm16"}
            told = [event.event for event in session.all(UiEvent)]
            assert told.count(UiEventKind.INPUT_ENDED) == 3

    run_in_fake_time(story())


def _chunk(session: FakeSession, seq: int, payload: bytes, *, is_final: bool = False) -> None:
    session.say(AudioChunk(session_id=session.ack.session_id, seq=seq, is_final=is_final, payload=payload))
