"""Several instances over one store in fake time: what crosses between them, and what is left of one that dies."""

from __future__ import annotations

import asyncio

from dragoman.core.job import JobRequest
from dragoman.dispatch.outcomes import Accepted, AlreadyKnown
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import NodeAsrPartial, NodeRegisterAck
from dragoman.protocol.session_messages import (
    ClientJobCancel,
    SessionAsrPartial,
    SessionClose,
    SessionCloseAck,
    UiEvent,
)
from tests.support.cluster import Member, a_cluster, until
from tests.support.fake_time import run_in_fake_time
from tests.support.world import FakeNode, FakeSession


async def _apart(here: Member, there: Member, *, slots: int = 1) -> tuple[FakeSession, FakeNode]:
    """A session on one instance and a node on another, which know of each other."""
    node = await there.node("n1", slots=slots)
    await until(lambda: here.knows("n1"))
    return await here.session(), node


def test_a_job_crosses_to_a_node_of_another_instance_and_its_result_comes_back() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak("hello")
            job = await node.gets_job()
            node.ack(job)
            node.say(
                NodeAsrPartial(
                    job_id=job.job_id,
                    node_id="n1",
                    session_id=job.session_id,
                    utterance_index=0,
                    text="hel",
                    is_final=False,
                    trace_id=job.trace_id,
                )
            )
            await session.hears(SessionAsrPartial)
            await until(lambda: "NODE_ACCEPTED" in [event.event for event in session.all(UiEvent)])
            node.finish(job, "olá")
            await until(lambda: session.terminals == [(0, "result")])
            assert session.results[0].text_translated == "olá"
            assert (a.slots_held("n1"), b.slots_held("n1")) == (0, 0)

    run_in_fake_time(story())


def test_a_node_that_another_instance_registers_is_known_within_a_refresh() -> None:
    async def story() -> None:
        async with a_cluster(3) as members:
            await members[0].node("n1")
            await asyncio.sleep(2.1)
            assert all(member.knows("n1") for member in members)

    run_in_fake_time(story())


def test_a_node_of_a_newcomer_is_known_once_the_newcomer_is() -> None:
    async def story() -> None:
        refresh_ms = {"scheduler__phase2__node_snapshot__refresh_interval_ms": 50}
        async with a_cluster(2, settle_s=0, **refresh_ms) as (a, b):
            await b.node("n1")
            await asyncio.sleep(0.7)
            assert a.knows("n1")

    run_in_fake_time(story())


def test_a_capability_lost_on_one_instance_stops_dispatch_on_the_others() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            node.services = ("asr",)
            node.heartbeat()
            await asyncio.sleep(2.2)
            session.speak()
            await session.hears(Error)
            assert session.terminals == [(0, "NO_AVAILABLE_NODE")]

    run_in_fake_time(story())


def test_a_cancel_crosses_to_the_node() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            job = await node.gets_job()
            session.say(ClientJobCancel(job_id=job.job_id))
            await until(lambda: session.terminals == [(0, "JOB_CANCELLED")])
            await until(lambda: len(node.cancels) == 1)

    run_in_fake_time(story())


def test_a_job_moves_at_once_when_its_node_is_lost_on_another_instance() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            other = await b.node("n2")
            await until(lambda: a.knows("n2"))
            session.speak()
            await until(lambda: bool(node.jobs or other.jobs))
            first, second = (node, other) if node.jobs else (other, node)
            first.hang_up()
            second.finish(await second.gets_job(within_s=1))
            await until(lambda: session.terminals == [(0, "result")])

    run_in_fake_time(story())


def test_a_failure_that_a_node_tells_crosses_and_the_job_moves() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            node.fail(await node.gets_job(), "NODE_OVERLOADED")
            here = await a.node("n2")
            here.finish(await here.gets_job())
            await until(lambda: session.terminals == [(0, "result")])

    run_in_fake_time(story())


def test_a_job_that_waits_gets_a_slot_that_becomes_free_on_another_instance() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            at_home = await b.session()
            at_home.speak("first")
            first = await node.gets_job()
            session.speak("second")
            await asyncio.sleep(1.5)
            node.finish(first)
            second = await node.gets_job(2, within_s=1)
            node.finish(second)
            await until(lambda: session.terminals == [(0, "result")])

    run_in_fake_time(story())


def test_a_session_that_resumes_elsewhere_gets_what_was_held_and_what_still_comes() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b, slots=9)
            for text in ("slow", "ready", "later"):
                session.speak(text)
            slow, ready, later = [await node.gets_job(number) for number in (1, 2, 3)]
            node.finish(ready, "2")
            await asyncio.sleep(0.1)
            assert session.terminals == [], "it waits for the first"
            token = session.ack.resume_token
            session.hang_up()
            again = await b.resumed(token)
            node.finish(slow, "1")
            node.finish(later, "3")
            await until(lambda: len(again.results) == 3)
            assert [result.text_translated for result in again.results] == ["1", "2", "3"]
            assert again.ack.session_id == session.ack.session_id

    run_in_fake_time(story())


def test_a_session_that_resumes_elsewhere_goes_on_numbering() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b, slots=9)
            for _ in range(3):
                session.speak()
                node.finish(await node.gets_job(len(node.jobs) + 1))
            await until(lambda: len(session.results) == 3)
            token = session.ack.resume_token
            session.hang_up()
            again = await b.resumed(token, terminals_received=3)
            again.speak("next", utterance_index=3)
            node.finish(await node.gets_job(4))
            await until(lambda: again.terminals == [(3, "result")])

    run_in_fake_time(story())


def test_a_session_whose_socket_seems_alive_resumes_elsewhere_too() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            job = await node.gets_job()
            again = await b.resumed(session.ack.resume_token)
            node.finish(job)
            await until(lambda: again.terminals == [(0, "result")])
            assert session.terminals == []
            assert session.closed == 1000

    run_in_fake_time(story())


def test_closing_a_session_that_moved_withdraws_its_jobs_where_they_are() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            await node.gets_job()
            again = await b.resumed(session.ack.resume_token)
            again.say(SessionClose(session_id=again.ack.session_id, reason="done"))
            await again.hears(SessionCloseAck)
            await until(lambda: len(node.cancels) == 1)

    run_in_fake_time(story())


def test_the_jobs_of_an_instance_that_died_end_elsewhere_and_are_found_by_a_resume() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b, slots=9)
            for text in ("first", "second"):
                session.speak(text)
            first, second = await node.gets_job(1), await node.gets_job(2)
            node.ack(first)
            node.ack(second)
            token = session.ack.resume_token
            a.die()
            again = await b.resumed(token)
            node.finish(first, "1")
            await asyncio.sleep(11)
            node.finish(second, "2")
            await until(lambda: len(again.results) == 2)
            assert [result.text_translated for result in again.results] == ["1", "2"]

    run_in_fake_time(story())


def test_a_result_that_had_ended_when_its_instance_died_is_told_on_a_resume_unless_it_was_had() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b, slots=9)
            for text in ("first", "second"):
                session.speak(text)
            for number in (1, 2):
                node.finish(await node.gets_job(number), str(number))
            await until(lambda: len(session.results) == 2)
            token = session.ack.resume_token
            a.die()
            again = await b.resumed(token, terminals_received=1)
            await until(lambda: [result.text_translated for result in again.results] == ["2"])
            await asyncio.sleep(15)
            assert len(again.terminals) == 1

    run_in_fake_time(story())


def test_a_job_that_waited_on_an_instance_that_died_is_served() -> None:
    async def story() -> None:
        async with a_cluster(2, scheduler__job_timeout__pending_timeout_seconds=60) as (a, b):
            session, node = await _apart(a, b)
            session.speak("first")
            node.ack(await node.gets_job())
            session.speak("waits")
            await asyncio.sleep(0.5)
            a.die()
            again = await b.resumed(session.ack.resume_token)
            await asyncio.sleep(11)
            node.finish(node.jobs[0])
            node.finish(await node.gets_job(2))
            await until(lambda: len(again.results) == 2)

    run_in_fake_time(story())


def test_nodes_of_an_instance_that_died_get_no_jobs_and_lose_theirs() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, _ = await _apart(a, b)
            session.speak()
            await asyncio.sleep(0.5)
            b.die()
            await asyncio.sleep(11)
            assert not a.knows("n1")
            here = await a.node("n2")
            here.finish(await here.gets_job())
            await until(lambda: session.terminals == [(0, "result")])

    run_in_fake_time(story())


def test_a_node_that_answers_on_another_instance_finishes_its_job() -> None:
    async def story() -> None:
        async with a_cluster(3) as (a, b, c):
            session, node = await _apart(a, b)
            session.speak()
            job = await node.gets_job()
            node.ack(job)
            b.die()
            again = await c.node("n1")
            await again.hears(NodeRegisterAck, within_s=1)
            again.finish(job, "from elsewhere")
            await until(lambda: session.terminals == [(0, "result")])
            assert session.results[0].text_translated == "from elsewhere"

    run_in_fake_time(story())


def test_a_node_id_that_is_alive_on_another_instance_is_refused_and_a_dead_one_replaced() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            _, node = await _apart(a, b)
            twin = FakeNode(a, "n1")
            twin.register()
            assert (await twin.hears(Error))[0].code == "NODE_ID_CONFLICT"
            node.connection.answers_pings = False
            heir = FakeNode(a, "n1")
            heir.register()
            await heir.hears(NodeRegisterAck, within_s=5)
            heir.heartbeat()
            await until(lambda: a.knows("n1"))
            await until(lambda: node.closed is not None)
            await asyncio.sleep(5)
            assert a.knows("n1")
            assert b.knows("n1")

    run_in_fake_time(story())


def test_one_request_on_three_instances_is_one_job_and_each_hears_its_end() -> None:
    async def story() -> None:
        async with a_cluster(3) as members:
            a, b, _ = members
            session, node = await _apart(a, b)
            session.speak("for its form")
            node.finish(await node.gets_job())
            await until(lambda: len(session.results) == 1)
            requests = [_request_like(member, session) for member in members]
            answers = await asyncio.gather(
                *(
                    member.app.parts.dispatcher.submit(request)
                    for member, request in zip(members, requests, strict=True)
                )
            )
            assert sum(isinstance(answer, Accepted) for answer in answers) == 1
            assert sum(isinstance(answer, AlreadyKnown) for answer in answers) == 2
            job = await node.gets_job(2)
            node.finish(job)
            await until(lambda: len(session.results) == 2)
            await asyncio.sleep(1)
            assert len(node.jobs) == 2

    run_in_fake_time(story())


def _request_like(member: Member, session: FakeSession) -> JobRequest:
    from tests.support.builders import a_need, a_request, a_speech

    return a_request(
        "job-shared",
        session_id=session.ack.session_id,
        utterance_index=1,
        need=a_need(services=("nmt", "tts")),
        speech=a_speech(services=frozenset({"nmt", "tts"}), audio=b"hello", audio_format="text"),
        accepted_ms=member.app.parts.clock.now_ms(),
    )


def test_an_instance_cut_off_refuses_at_once_and_is_whole_again_without_a_restart() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak("on its way")
            job = await node.gets_job()
            a.line.cut()
            session.speak("refused")
            await session.hears(Error)
            assert session.terminals == [(1, "SCHEDULER_DEPENDENCY_DOWN")]
            await asyncio.sleep(2)
            node.finish(job)
            await asyncio.sleep(1)
            a.line.mend()
            await until(lambda: (0, "result") in session.terminals, within_s=10)
            session.speak("again")
            node.finish(await node.gets_job(2))
            await until(lambda: (2, "result") in session.terminals)

    run_in_fake_time(story())


def test_a_result_that_comes_while_the_store_is_away_is_held_and_delivered() -> None:
    async def story() -> None:
        async with a_cluster(1) as (a,):
            node, session = await a.node(), await a.session()
            session.speak()
            job = await node.gets_job()
            a.line.cut()
            node.finish(job, "held")
            await asyncio.sleep(3)
            assert session.terminals == []
            a.line.mend()
            await until(lambda: session.terminals == [(0, "result")], within_s=5)

    run_in_fake_time(story())


def test_an_instance_that_was_thought_dead_lets_go_of_what_others_took() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            job = await node.gets_job()
            node.ack(job)
            await asyncio.sleep(0.2)
            a.line.cut()
            await asyncio.sleep(12)
            again = await b.resumed(session.ack.resume_token)
            node.finish(job)
            await until(lambda: again.terminals == [(0, "result")])
            a.line.mend()
            await until(lambda: session.closed is not None)
            await asyncio.sleep(40)
            assert session.terminals == []
            assert again.terminals == [(0, "result")]
            assert not list(a.app.parts.dispatcher.jobs)

    run_in_fake_time(story())


def test_a_drained_instance_sends_its_sessions_and_nodes_to_the_others_and_loses_nothing() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            node = await a.node("n1")
            session = await a.session()
            session.speak()
            job = await node.gets_job()
            draining = asyncio.create_task(a.app.drain())
            await until(lambda: session.closed == 1012)
            again = await b.resumed(session.ack.resume_token)
            assert node.closed is None, "it is not done yet"
            node.finish(job)
            await until(lambda: node.closed == 1012)
            await draining
            await until(lambda: again.terminals == [(0, "result")])

    run_in_fake_time(story())


def test_instances_that_all_stop_at_once_bring_their_results_themselves() -> None:
    async def story() -> None:
        async with a_cluster(2) as (a, b):
            session, node = await _apart(a, b)
            session.speak()
            job = await node.gets_job()
            node.ack(job)
            draining = [asyncio.create_task(member.app.drain()) for member in (a, b)]
            await asyncio.sleep(1)
            assert session.closed is None
            node.finish(job)
            await asyncio.gather(*draining)
            assert session.terminals == [(0, "result")]

    run_in_fake_time(story())
