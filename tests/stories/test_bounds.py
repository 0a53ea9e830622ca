"""The whole instance in fake time: what is kept has a limit, whoever wants more."""

from __future__ import annotations

import asyncio

from dragoman.protocol.session_messages import Backpressure
from tests.support.fake_time import run_in_fake_time
from tests.support.world import FakeSession, a_world


def test_nodes_that_come_and_go_under_new_names_are_not_remembered_without_end() -> None:
    async def story() -> None:
        async with a_world(server__max_nodes=10) as world:
            for _ in range(100):
                (await world.node()).hang_up()
            await asyncio.sleep(0.1)
            assert len(world.app.parts.dispatcher.view) == 10

    run_in_fake_time(story())


def test_a_node_that_is_gone_is_forgotten_after_a_while() -> None:
    async def story() -> None:
        async with a_world(scheduler__phase2__node_snapshot__remove_stale_after_seconds=60) as world:
            (await world.node()).hang_up()
            await asyncio.sleep(59)
            assert len(world.app.parts.dispatcher.view) == 1
            await asyncio.sleep(3)
            assert len(world.app.parts.dispatcher.view) == 0

    run_in_fake_time(story())


def test_clients_that_reconnect_in_a_loop_without_resuming_are_told_to_wait() -> None:
    async def story() -> None:
        async with a_world(server__max_sessions=5) as world:
            for _ in range(10):
                (await world.session()).hang_up()
            eleventh = FakeSession(world)
            eleventh.say_raw(
                b'{"type":"session_init","client_version":"1","platform":"t","src_lang":"en","tgt_lang":"pt"}'
            )
            await asyncio.sleep(0.1)
            assert [error.code for error in eleventh.errors] == ["RATE_LIMITED"]
            await asyncio.sleep(62)
            assert len(world.app.parts.router.sessions) == 0
            await world.session()

    run_in_fake_time(story())


def test_a_session_is_told_to_slow_down_before_the_waiting_room_is_full() -> None:
    async def story() -> None:
        async with a_world(scheduler__queue__max_pending_jobs=10) as world:
            await world.node(slots=1)
            session = await world.session()
            for _ in range(8):
                session.speak()
            await asyncio.sleep(0.1)
            assert session.all(Backpressure) == []
            session.speak()
            await asyncio.sleep(0.1)
            assert [told.action for told in session.all(Backpressure)] == ["SLOW_DOWN"]
            assert session.errors == []

    run_in_fake_time(story())


def test_what_is_parked_for_a_client_that_is_away_has_a_limit_and_nothing_is_lost_silently() -> None:
    async def story() -> None:
        async with a_world(server__send_queue_bytes=65536) as world:
            node, session = await world.node(slots=20), await world.session()
            for _ in range(10):
                session.speak()
            await asyncio.sleep(0.01)
            for job in node.jobs:
                node.ack(job)
            token = session.ack.resume_token
            session.hang_up()
            for job in node.jobs:
                node.finish(job, tts_audio=bytes(20_000))
            again = FakeSession(world)
            again.say_raw(
                b'{"type":"session_init","client_version":"1","platform":"t","src_lang":"en","tgt_lang":"pt",'
                b'"resume_token":"%s"}' % token.encode()
            )
            await asyncio.sleep(0.1)
            assert [index for index, _ in again.terminals] == list(range(10))
            assert [how for _, how in again.terminals] == ["result"] * 3 + ["pending_overflow_evict"] * 7

    run_in_fake_time(story())


def test_a_fault_in_what_is_done_again_and_again_ends_neither_it_nor_the_instance() -> None:
    async def story() -> None:
        async with a_world() as world:
            sweep, failures = world.app.parts.store.sweep, iter(range(3))

            async def failing() -> None:
                if next(failures, None) is not None:
                    raise RuntimeError("as if something broke")
                await sweep()

            world.app.parts.store.sweep = failing  # type: ignore[method-assign]
            node, session = await world.node(), await world.session()
            await asyncio.sleep(10)
            assert next(failures, None) is None, "it was tried again"
            session.speak()
            node.finish(await node.gets_job())
            await asyncio.sleep(0.01)
            assert session.terminals == [(0, "result")]

    run_in_fake_time(story())
