"""The whole instance in fake time: what becomes of an utterance when all goes well, and when it does not."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from dragoman.protocol.node_messages import JobResult
from dragoman.protocol.session_messages import UiEvent, UiEventKind
from tests.support.fake_time import run_in_fake_time
from tests.support.world import a_world, languages


def test_an_utterance_goes_to_a_node_and_its_result_comes_back() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            index = session.speak("good morning")
            job = await node.gets_job()
            assert (job.attempt_id, job.audio, job.src_lang, job.tgt_lang) == (1, b"good morning", "en", "pt")
            node.finish(job, "bom dia", tts_audio=b"sound", tts_format="wav")
            await asyncio.sleep(0.01)
            (result,) = session.results
            assert (result.utterance_index, result.text_translated, result.tts_audio) == (index, "bom dia", b"sound")
            assert result.job_id == job.job_id
            assert world.slots_held(node.node_id) == 0

    run_in_fake_time(story())


def test_a_slow_job_tells_its_progress_and_a_fast_one_only_its_result() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            session.speak()
            fast = await node.gets_job()
            node.ack(fast)
            node.finish(fast)
            await asyncio.sleep(0.5)
            assert session.all(UiEvent) == []
            session.speak()
            slow = await node.gets_job(2)
            await asyncio.sleep(0.1)
            node.ack(slow)
            await asyncio.sleep(0.1)
            told = [(event.event, event.job_id) for event in session.all(UiEvent)]
            assert told == [(UiEventKind.DISPATCHED, slow.job_id), (UiEventKind.NODE_ACCEPTED, slow.job_id)]

    run_in_fake_time(story())


def test_the_least_loaded_node_gets_the_job() -> None:
    async def story() -> None:
        async with a_world() as world:
            nodes = [await world.node(slots=4) for _ in range(3)]
            session = await world.session()
            for _ in range(12):
                session.speak()
            await asyncio.sleep(0.1)
            assert [len(node.jobs) for node in nodes] == [4, 4, 4]

    run_in_fake_time(story())


def test_a_full_fleet_makes_jobs_wait_and_a_freed_slot_serves_them_at_once() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("first")
            session.speak("second")
            first = await node.gets_job()
            await asyncio.sleep(1)
            assert len(node.jobs) == 1
            node.finish(first)
            assert [job.audio for job in node.jobs] == [b"first"]
            await asyncio.sleep(0)
            assert [job.audio for job in node.jobs] == [b"first", b"second"]

    run_in_fake_time(story())


def test_waiting_jobs_are_served_by_priority_then_by_deadline() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("runs")
            session.speak("later", deadline_ms=9000)
            session.speak("sooner", deadline_ms=5000)
            session.speak("urgent", priority=9)
            session.speak("patient", priority=0, deadline_ms=100_000)
            for count in range(1, 6):
                node.finish(await node.gets_job(count))
            await asyncio.sleep(0.1)
            assert [job.audio for job in node.jobs] == [b"runs", b"urgent", b"sooner", b"later", b"patient"]

    run_in_fake_time(story())


def test_who_waits_too_long_is_refused_with_the_reasons_and_when_to_ask_again() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.node(slots=1)
            await world.node("zh-only", language_capabilities=languages(("zh", "en")))
            session = await world.session()
            session.speak("runs")
            session.speak("waits")
            await asyncio.sleep(10.2)
            (error,) = session.errors
            assert error.code == "NO_AVAILABLE_NODE"
            assert error.details is not None
            assert error.details["reasons"] == {"full": 1, "language": 1}
            assert error.details["utterance_index"] == 1
            assert error.details["retry_after_ms"] > 0
            assert error.details["retryable"] is True

    run_in_fake_time(story())


def test_what_no_node_can_ever_do_is_refused_at_once() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.node("n1", language_capabilities=languages(("zh", "en")))
            await world.node("n2", services=("asr",))
            await world.node("n3", tenant_id="acme", accept_public_jobs=False)
            session = await world.session()
            session.speak()
            await asyncio.sleep(0)
            (error,) = session.errors
            assert error.code == "NO_AVAILABLE_NODE"
            assert error.details is not None
            assert error.details["reasons"] == {"language": 1, "service_missing": 1, "tenant": 1}

    run_in_fake_time(story())


def test_a_waiting_room_that_is_full_refuses_with_queue_full() -> None:
    async def story() -> None:
        async with a_world(scheduler__queue__max_pending_jobs=2) as world:
            await world.node(slots=1)
            session = await world.session()
            for _ in range(4):
                session.speak()
            await asyncio.sleep(0.01)
            (error,) = session.errors
            assert error.code == "QUEUE_FULL"
            assert error.details is not None
            assert error.details["retry_after_ms"] >= 100
            assert error.details["utterance_index"] == 3

    run_in_fake_time(story())


def test_without_waiting_a_full_fleet_refuses_at_once() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__pending_timeout_seconds=0) as world:
            await world.node(slots=1)
            session = await world.session()
            session.speak()
            session.speak()
            await asyncio.sleep(0)
            assert [error.code for error in session.errors] == ["NO_AVAILABLE_NODE"]

    run_in_fake_time(story())


def test_a_deadline_ends_a_job_wherever_it_is_and_the_node_is_told() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("runs", deadline_ms=2000)
            session.speak("waits", deadline_ms=1000)
            job = await node.gets_job()
            node.ack(job)
            await asyncio.sleep(1.1)
            assert session.terminals == [(1, "DEADLINE_EXCEEDED")]
            await asyncio.sleep(1)
            assert session.terminals == [(1, "DEADLINE_EXCEEDED"), (0, "DEADLINE_EXCEEDED")]
            assert [cancel.job_id for cancel in node.cancels] == [job.job_id]

    run_in_fake_time(story())


def test_a_node_that_never_acknowledges_loses_the_job_to_another() -> None:
    async def story() -> None:
        async with a_world() as world:
            deaf = await world.node()
            session = await world.session()
            session.speak()
            job = await deaf.gets_job()
            other = await world.node()
            again = await other.gets_job(within_s=4)
            assert (again.job_id, again.attempt_id) == (job.job_id, 2)
            assert [cancel.job_id for cancel in deaf.cancels] == [job.job_id]
            deaf.finish(job, "too late")
            other.finish(again, "in time")
            await asyncio.sleep(0.01)
            assert [result.text_translated for result in session.results] == ["in time"]

    run_in_fake_time(story())


def test_a_node_that_acknowledges_and_never_answers_loses_the_job_at_the_job_timeout() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout_seconds=5) as world:
            mute = await world.node()
            session = await world.session()
            session.speak()
            mute.ack(await mute.gets_job())
            other = await world.node()
            await asyncio.sleep(4.9)
            assert other.jobs == []
            again = await other.gets_job(within_s=0.3)
            other.finish(again)
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "result")]

    run_in_fake_time(story())


def test_a_job_is_given_up_when_it_has_had_all_its_attempts() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__failover_max_attempts=2) as world:
            nodes = [await world.node() for _ in range(6)]
            session = await world.session()
            session.speak()
            await asyncio.sleep(20)
            assert sum(len(node.jobs) for node in nodes) == 3, "the first attempt and two more"
            assert session.terminals == [(0, "JOB_TIMEOUT")]

    run_in_fake_time(story())


def test_a_node_that_hangs_up_loses_its_jobs_to_others_at_once() -> None:
    async def story() -> None:
        async with a_world() as world:
            first, session = await world.node(), await world.session()
            session.speak()
            job = await first.gets_job()
            first.ack(job)
            second = await world.node()
            first.hang_up()
            again = await second.gets_job(within_s=0.1)
            assert again.attempt_id == 2
            second.finish(again)
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "result")]

    run_in_fake_time(story())


def test_a_silent_node_loses_its_jobs_within_one_heartbeat_timeout() -> None:
    async def story() -> None:
        async with a_world(
            scheduler__job_timeout_seconds=600,
            scheduler__heartbeat_interval_seconds=4,
            scheduler__node_health__heartbeat_interval_seconds=4,
            scheduler__node_health__heartbeat_timeout_seconds=10,
        ) as world:
            silent, session = await world.node(), await world.session()
            session.speak()
            silent.ack(await silent.gets_job())
            await asyncio.sleep(5)
            lively = await world.node()
            await asyncio.sleep(5)
            lively.heartbeat()
            await lively.gets_job(within_s=1.2)

    run_in_fake_time(story())


@pytest.mark.parametrize("code", ["NODE_OVERLOADED", "MODEL_NOT_AVAILABLE", "NO_GPU_AVAILABLE"])
def test_a_failure_that_is_the_nodes_moves_the_job(code: str) -> None:
    async def story() -> None:
        async with a_world() as world:
            nodes = [await world.node(), await world.node()]
            session = await world.session()
            session.speak()
            await asyncio.sleep(0.01)
            (failing,) = [node for node in nodes if node.jobs]
            (other,) = [node for node in nodes if not node.jobs]
            failing.fail(failing.jobs[0], code)
            other.finish(await other.gets_job(within_s=0.1))
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "result")]

    run_in_fake_time(story())


def test_a_failure_that_is_the_jobs_is_told_to_the_session() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            session.speak()
            job = await node.gets_job()
            node.fail(job, "INTERNAL_ERROR")
            await asyncio.sleep(0.01)
            (error,) = session.errors
            assert error.code == "INTERNAL_ERROR"
            assert error.details is not None
            assert error.details["job_id"] == job.job_id
            assert world.slots_held(node.node_id) == 0

    run_in_fake_time(story())


def test_a_node_without_the_model_is_passed_over_for_a_while() -> None:
    async def story() -> None:
        async with a_world() as world:
            bare = await world.node("bare")
            session = await world.session()
            session.speak()
            bare.fail(await bare.gets_job(), "MODEL_NOT_AVAILABLE")
            able = await world.node("able", slots=100)
            await able.gets_job(within_s=0.1)
            for _ in range(20):
                session.speak()
            await asyncio.sleep(0.1)
            assert len(bare.jobs) == 1
            await asyncio.sleep(61)
            for node in (bare, able):
                node.heartbeat()
            for _ in range(20):
                session.speak()
            await asyncio.sleep(0.1)
            assert len(bare.jobs) == 2

    run_in_fake_time(story())


def test_a_client_may_withdraw_its_job_and_nobody_elses() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session, stranger = await world.node(), await world.session(), await world.session()
            session.speak()
            job = await node.gets_job()
            stranger.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % job.job_id.encode())
            await asyncio.sleep(0.01)
            assert [error.code for error in stranger.errors] == ["INVALID_MESSAGE"]
            assert node.cancels == []
            session.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % job.job_id.encode())
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "JOB_CANCELLED")]
            assert [cancel.job_id for cancel in node.cancels] == [job.job_id]
            node.finish(job, "too late")
            await asyncio.sleep(0.01)
            assert session.results == []

    run_in_fake_time(story())


def test_a_slot_stays_taken_until_its_node_is_done_with_a_withdrawn_job() -> None:
    """The node is what must never be over-committed, whatever the scheduler has decided meanwhile."""

    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("withdrawn")
            job = await node.gets_job()
            node.ack(job)
            node.running = [job.job_id]
            session.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % job.job_id.encode())
            session.speak("waits")
            await asyncio.sleep(5)
            node.heartbeat()
            await asyncio.sleep(0.1)
            assert len(node.jobs) == 1
            node.fail(job, "JOB_CANCELLED")
            assert (await node.gets_job(2, within_s=0.1)).audio == b"waits"

    run_in_fake_time(story())


def test_a_heartbeat_without_the_job_gives_the_slot_of_a_withdrawn_job_back() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("withdrawn")
            job = await node.gets_job()
            session.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % job.job_id.encode())
            session.speak("waits")
            await asyncio.sleep(2)
            node.heartbeat()
            assert (await node.gets_job(2, within_s=0.1)).audio == b"waits"

    run_in_fake_time(story())


def test_a_slot_nobody_renews_is_given_back_after_its_lease() -> None:
    async def story() -> None:
        async with a_world(
            scheduler__task_binding__reserved_ttl_seconds=20, scheduler__job_timeout__pending_timeout_seconds=60
        ) as world:
            node, session = await world.node(slots=1), await world.session()
            node.running = ["another thing"]
            session.speak("withdrawn")
            job = await node.gets_job()
            session.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % job.job_id.encode())
            session.speak("waits")
            await asyncio.sleep(19)
            assert len(node.jobs) == 1
            await node.gets_job(2, within_s=3)

    run_in_fake_time(story())


def test_only_the_current_attempt_at_the_current_node_can_end_a_job() -> None:
    async def story() -> None:
        async with a_world() as world:
            owner, thief, session = await world.node(slots=5), await world.node("thief"), await world.session()
            thief.heartbeat(cpu=99)
            session.speak()
            job = await owner.gets_job()
            thief.say(_as_result(thief.node_id, job.job_id, 1))
            thief.say(_as_result(owner.node_id, job.job_id, 1))
            owner.say(_as_result(owner.node_id, job.job_id, 7))
            owner.say(_as_result(owner.node_id, "job-unknown", 1))
            await asyncio.sleep(0.1)
            assert session.results == []
            owner.finish(job, "true")
            owner.finish(job, "said twice")
            await asyncio.sleep(0.1)
            assert [result.text_translated for result in session.results] == ["true"]

    run_in_fake_time(story())


def _as_result(node_id: str, job_id: str, attempt: int) -> JobResult:
    return JobResult(
        job_id=job_id,
        attempt_id=attempt,
        node_id=node_id,
        session_id="whatever",
        utterance_index=0,
        success=True,
        trace_id="t",
        text_translated="a lie",
    )


def test_the_same_request_again_makes_no_second_job_and_gets_the_same_answer() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=4), await world.session()
            session.speak("once", request_id="r1", utterance_index=0)
            job = await node.gets_job()
            session.speak("once", request_id="r1", utterance_index=0)
            await asyncio.sleep(0.1)
            assert len(node.jobs) == 1
            assert {event.job_id for event in session.all(UiEvent)} == {job.job_id}
            node.finish(job, "answer")
            await asyncio.sleep(0.01)
            session.speak("once", request_id="r1", utterance_index=0)
            await asyncio.sleep(0.01)
            assert [result.text_translated for result in session.results] == ["answer", "answer"]
            assert len(node.jobs) == 1

    run_in_fake_time(story())


def test_the_same_request_id_of_another_session_is_another_job() -> None:
    async def story() -> None:
        async with a_world() as world:
            node = await world.node(slots=4)
            one, two = await world.session(), await world.session()
            one.speak(request_id="r")
            two.speak(request_id="r")
            await asyncio.sleep(0.01)
            assert len({job.job_id for job in node.jobs}) == 2

    run_in_fake_time(story())


def test_the_preferred_node_is_taken_while_it_can() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.node("a", slots=9)
            wanted = await world.node("b", slots=2)
            session = await world.session()
            for _ in range(4):
                session.speak(preferred_node_id="b")
            await asyncio.sleep(0.01)
            assert len(wanted.jobs) == 2

    run_in_fake_time(story())


def test_spread_avoids_the_node_that_served_the_session_last() -> None:
    async def story() -> None:
        async with a_world(scheduler__task_binding__spread_enabled=True) as world:
            nodes = [await world.node(slots=9), await world.node(slots=9)]
            session = await world.session()
            served: list[str] = []
            for _ in range(8):
                session.speak()
                await asyncio.sleep(0.01)
                (busy,) = [node for node in nodes if len(node.jobs) > served.count(node.node_id)]
                served.append(busy.node_id)
                busy.finish(busy.jobs[-1])
                await asyncio.sleep(0.01)
            assert all(one != two for one, two in itertools.pairwise(served))

    run_in_fake_time(story())


def test_a_node_above_the_resource_threshold_is_passed_over() -> None:
    async def story() -> None:
        async with a_world() as world:
            hot, session = await world.node(), await world.session()
            hot.heartbeat(cpu=86)
            session.speak()
            await asyncio.sleep(1)
            assert hot.jobs == []
            hot.heartbeat(cpu=20)
            await hot.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_job_that_kills_every_node_it_meets_hurts_only_so_many() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__failover_max_attempts=3) as world:
            nodes = [await world.node() for _ in range(10)]
            session = await world.session()
            session.speak("poison")
            for _ in range(20):
                await asyncio.sleep(0.05)
                for node in nodes:
                    if node.jobs:
                        node.hang_up()
            hurt = [node for node in nodes if node.jobs]
            assert len(hurt) == 4
            assert session.terminals == [(0, "NODE_UNAVAILABLE")]

    run_in_fake_time(story())


def test_every_accepted_utterance_of_a_storm_ends_exactly_once() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__pending_timeout_seconds=3) as world:
            nodes = [await world.node(slots=3) for _ in range(5)]
            sessions = [await world.session() for _ in range(10)]
            for turn in range(40):
                for session in sessions:
                    session.speak(deadline_ms=4000)
                for place, node in enumerate(nodes):
                    for job in node.jobs[turn % 3 :: 2]:
                        (node.finish if (place + turn) % 4 else node.ack)(job)
                if turn == 20:
                    nodes[0].hang_up()
                await asyncio.sleep(0.1)
            await asyncio.sleep(30)
            for session in sessions:
                ended = [index for index, _ in session.terminals]
                assert sorted(ended) == list(range(40))
            assert len(world.app.parts.dispatcher.jobs) == 0
            assert len(world.app.parts.dispatcher.waiting) == 0

    run_in_fake_time(story())


def test_a_waiting_job_is_named_so_that_it_can_be_withdrawn() -> None:
    async def story() -> None:
        async with a_world() as world:
            await world.node(slots=1)
            session = await world.session()
            session.speak("runs")
            session.speak("waits")
            await asyncio.sleep(0.1)
            (waits,) = [event for event in session.all(UiEvent) if event.utterance_index == 1]
            assert waits.event is UiEventKind.INPUT_ENDED
            session.say_raw(b'{"type":"job_cancel","job_id":"%s"}' % waits.job_id.encode())
            await asyncio.sleep(0.1)
            assert session.terminals == [(1, "JOB_CANCELLED")]
            assert len(world.app.parts.dispatcher.waiting) == 0

    run_in_fake_time(story())


def test_a_request_that_no_node_took_may_be_asked_again_and_one_that_failed_repeats_its_end() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=1), await world.session()
            session.speak("runs", request_id="a", utterance_index=0)
            session.speak("waits", request_id="b", utterance_index=1)
            job = await node.gets_job()
            node.ack(job)
            await asyncio.sleep(10.2)
            assert session.terminals == [(1, "NO_AVAILABLE_NODE")]
            node.fail(job, "INTERNAL_ERROR")
            session.speak("waits", request_id="b", utterance_index=1)
            node.finish(await node.gets_job(2, within_s=0.1), "at last")
            session.speak("runs", request_id="a", utterance_index=0)
            await asyncio.sleep(0.1)
            assert session.terminals[1:] == [(0, "INTERNAL_ERROR"), (1, "result"), (0, "INTERNAL_ERROR")]
            assert len(node.jobs) == 2

    run_in_fake_time(story())


def test_no_progress_is_told_of_what_has_ended() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            session.speak()
            job = await node.gets_job()
            node.ack(job)
            node.fail(job, "INTERNAL_ERROR")
            await asyncio.sleep(0.1)
            assert session.all(UiEvent) == []

    run_in_fake_time(story())
