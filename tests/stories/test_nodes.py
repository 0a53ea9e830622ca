"""The whole instance in fake time: how nodes come, change, flap, drain and go."""

from __future__ import annotations

import asyncio

from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import NodeDrain, NodeRegisterAck
from tests.support.fake_time import run_in_fake_time
from tests.support.world import FakeNode, a_world, languages


def test_a_node_gets_jobs_only_after_its_good_heartbeats() -> None:
    async def story() -> None:
        async with a_world(scheduler__node_health__health_check_count=2) as world:
            node, session = await world.node(), await world.session()
            session.speak()
            await asyncio.sleep(1)
            assert node.jobs == []
            node.heartbeat()
            await node.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_node_without_an_id_is_given_one() -> None:
    async def story() -> None:
        async with a_world() as world:
            node = FakeNode(world, "")
            node.register(node_id=None)
            (ack,) = await node.hears(NodeRegisterAck)
            assert ack.node_id.startswith("node-")
            assert ack.status == "registering"

    run_in_fake_time(story())


def test_the_node_id_of_a_live_node_is_refused_to_another() -> None:
    async def story() -> None:
        async with a_world() as world:
            first = await world.node("same")
            second = await world.node("same")
            (error,) = await second.hears(Error, within_s=3)
            assert error.code == "NODE_ID_CONFLICT"
            assert first.closed is None
            session = await world.session()
            session.speak()
            await first.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_the_node_id_of_a_dead_connection_passes_to_the_new_one() -> None:
    async def story() -> None:
        async with a_world() as world:
            dead = await world.node("same")
            dead.connection.answers_pings = False
            alive = await world.node("same", beats=False)
            await alive.hears(NodeRegisterAck, within_s=3)
            assert dead.closed is not None
            alive.heartbeat()
            session = await world.session()
            session.speak()
            await alive.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_wrong_capability_schema_is_refused_and_the_node_may_try_again() -> None:
    async def story() -> None:
        async with a_world() as world:
            node = FakeNode(world, "n")
            node.register(capability_schema_version="1.0")
            (error,) = await node.hears(Error)
            assert error.code == "INVALID_CAPABILITY_SCHEMA"
            node.register(capability_schema_version="2.0")
            await node.hears(NodeRegisterAck)

    run_in_fake_time(story())


def test_require_gpu_refuses_nodes_without_one() -> None:
    async def story() -> None:
        async with a_world(scheduler__node_health__require_gpu=True) as world:
            node = FakeNode(world, "n")
            node.register()
            (error,) = await node.hears(Error)
            assert error.code == "NO_GPU_AVAILABLE"

    run_in_fake_time(story())


def test_a_change_of_capabilities_stops_and_starts_the_work() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=9), await world.session()
            node.services = ("asr",)
            node.heartbeat()
            session.speak()
            await asyncio.sleep(0.01)
            assert [error.code for error in session.errors] == ["NO_AVAILABLE_NODE"]
            node.services = ("asr", "nmt", "tts")
            node.heartbeat(language_capabilities=languages(("en", "pt")))
            session.speak()
            await node.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_draining_node_finishes_and_gets_nothing_more() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=9), await world.session()
            session.speak()
            job = await node.gets_job()
            node.say(NodeDrain())
            node.heartbeat()
            other = await world.node()
            session.speak()
            await other.gets_job(within_s=0.1)
            node.finish(job)
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "result")]
            assert len(node.jobs) == 1

    run_in_fake_time(story())


def test_a_node_that_fails_again_and_again_is_degraded_until_a_good_heartbeat() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__ack_timeout_ms=500) as world:
            bad = await world.node("bad", slots=9)
            session = await world.session()
            for _ in range(3):
                session.speak()
            await asyncio.sleep(0.8)
            entry = world.app.parts.dispatcher.view.get("bad")  # type: ignore[arg-type]
            assert entry is not None
            assert entry.health.status == "degraded"
            given = len(bad.jobs)
            session.speak()
            await asyncio.sleep(0.2)
            assert len(bad.jobs) == given
            bad.running = [job.job_id for job in bad.jobs]
            bad.heartbeat()
            assert entry.health.status == "ready"

    run_in_fake_time(story())


def test_a_silent_node_goes_offline_and_a_heartbeat_brings_it_back() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            await asyncio.sleep(47)
            session.speak()
            await asyncio.sleep(0.1)
            assert node.jobs == []
            node.heartbeat()
            await node.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_node_that_reconnects_keeps_the_slots_it_may_still_be_using() -> None:
    async def story() -> None:
        async with a_world() as world:
            before = await world.node("n", slots=1)
            session = await world.session()
            session.speak("first")
            job = await before.gets_job()
            before.ack(job)
            before.hang_up()
            after = await world.node("n", slots=1, beats=False)
            await asyncio.sleep(1.5)
            after.running = [job.job_id]
            after.heartbeat()
            await asyncio.sleep(0.1)
            assert after.jobs == [], "it still works on the job it had"
            after.running = []
            after.heartbeat()
            again = await after.gets_job(within_s=0.1)
            assert (again.job_id, again.attempt_id) == (job.job_id, 2)

    run_in_fake_time(story())


def test_a_node_never_runs_more_than_its_slots_counted_at_the_node() -> None:
    async def story() -> None:
        async with a_world(scheduler__job_timeout__ack_timeout_ms=300, scheduler__job_timeout_seconds=2) as world:
            nodes = [await world.node(slots=2) for _ in range(4)]
            sessions = [await world.session() for _ in range(4)]
            running: dict[str, set[str]] = {node.node_id: set() for node in nodes}
            seen: dict[str, int] = {node.node_id: 0 for node in nodes}
            for turn in range(200):
                for session in sessions:
                    session.speak(deadline_ms=900)
                await asyncio.sleep(0.05)
                for place, node in enumerate(nodes):
                    at_work = running[node.node_id]
                    for job in node.jobs[seen[node.node_id] :]:
                        at_work.add(f"{job.job_id}#{job.attempt_id}")
                    seen[node.node_id] = len(node.jobs)
                    assert len(at_work) <= 2
                    for job in node.jobs:
                        name = f"{job.job_id}#{job.attempt_id}"
                        if name in at_work and (turn + place) % 5 == 0:
                            at_work.discard(name)
                            node.finish(job)
                    node.running = [name.partition("#")[0] for name in at_work]
                    if turn % 20 == place:
                        node.heartbeat()

    run_in_fake_time(story())


def test_a_draining_node_that_falls_silent_and_comes_back_still_drains() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(), await world.session()
            node.say(NodeDrain())
            await asyncio.sleep(50)
            node.heartbeat()
            session.speak()
            await asyncio.sleep(1)
            assert node.jobs == []
            node.register()
            node.heartbeat()
            await node.gets_job(within_s=0.1)

    run_in_fake_time(story())


def test_a_node_that_says_it_is_full_is_not_asked_again_until_it_says_how_it_is() -> None:
    async def story() -> None:
        async with a_world() as world:
            node, session = await world.node(slots=4), await world.session()
            session.speak()
            node.fail(await node.gets_job(), "NODE_OVERLOADED")
            await asyncio.sleep(1)
            assert len(node.jobs) == 1
            node.heartbeat()
            assert (await node.gets_job(2, within_s=0.1)).attempt_id == 2

    run_in_fake_time(story())


def test_what_a_node_says_while_its_older_connection_is_probed_is_heard() -> None:
    async def story() -> None:
        async with a_world() as world:
            dead = await world.node("same")
            dead.connection.answers_pings = False
            alive = await world.node("same", beats=True)
            await alive.hears(NodeRegisterAck, within_s=3)
            session = await world.session()
            session.speak()
            await alive.gets_job(within_s=0.1)

    run_in_fake_time(story())
