"""What does a node do when the scheduler goes, refuses, or talks nonsense?"""

import asyncio

import msgspec
import pytest

from dragoman.node import Node, Services
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import JobResult, NodeControl, NodeDrain, NodeHeartbeat
from tests.node.fake_scheduler import WAIT_S, assign, fake_scheduler, registered, running
from tests.node.test_jobs import Gate


def _echo() -> Services:
    services = Services()

    @services.translates(("en", "pt"))
    async def translate(text: str, src: str, tgt: str) -> str:
        return text

    return services


def test_a_node_comes_back_by_the_id_that_the_scheduler_gave_it() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, running(Node(_echo()), scheduler.url):
            peer = await scheduler.peer()
            assert (await peer.welcome("node-7")).node_id is None
            await peer.expect(NodeHeartbeat)
            peer.connection.transport.abort()
            again = await scheduler.peer()
            assert (await again.welcome()).node_id == "node-7"
            assert (await again.expect(NodeHeartbeat)).node_id == "node-7"

    asyncio.run(story())


def test_a_result_that_was_ready_without_a_connection_is_brought_later() -> None:
    async def story() -> None:
        gate = Gate()
        async with fake_scheduler() as scheduler, running(gate.node(), scheduler.url):
            peer = await scheduler.peer()
            await peer.welcome()
            await peer.send(assign())
            await gate.entered.get()
            await peer.connection.close()
            gate.open.set()
            again = await scheduler.peer()
            await again.welcome()
            assert (await again.expect(JobResult)).text_translated == "[pt] hello"

    asyncio.run(story())


def test_a_job_that_runs_over_a_lost_connection_is_in_the_next_heartbeat() -> None:
    async def story() -> None:
        gate = Gate()
        async with fake_scheduler() as scheduler, running(gate.node(), scheduler.url):
            peer = await scheduler.peer()
            await peer.welcome()
            await peer.send(assign())
            await gate.entered.get()
            peer.connection.transport.abort()
            again = await scheduler.peer()
            await again.welcome()
            assert (await again.expect(NodeHeartbeat)).running_job_ids == ["job-1"]
            gate.open.set()
            assert (await again.expect(JobResult)).success

    asyncio.run(story())


@pytest.mark.parametrize("code", ["NODE_ID_CONFLICT", "SCHEDULER_DRAINING", "A_CODE_OF_THE_FUTURE"])
def test_a_refusal_that_may_pass_is_waited_out(code: str) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, running(Node(_echo(), node_id="n-1"), scheduler.url):
            await (await scheduler.peer()).refuse(code)
            assert (await (await scheduler.peer()).welcome()).node_id == "n-1"

    asyncio.run(story())


def test_a_scheduler_that_is_not_there_yet_is_waited_for() -> None:
    async def story() -> None:
        knocked = asyncio.Event()

        def slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()
            knocked.set()

        door = await asyncio.start_server(slam, "127.0.0.1", 0)
        port = door.sockets[0].getsockname()[1]
        async with running(Node(_echo()), f"ws://127.0.0.1:{port}/ws/node"):
            await knocked.wait()
            door.close()
            async with fake_scheduler(port) as scheduler:
                await (await scheduler.peer()).welcome()

    asyncio.run(story())


def test_nonsense_of_a_scheduler_does_no_harm() -> None:
    nonsense: list[object] = [
        7,
        {"type": "job_assign"},
        {"type": "job_assign", "job_id": 5},
        {"type": "from_the_future", "x": 1},
        {"type": "node_control", "command": "explode"},
        {"type": "job_cancel", "job_id": "never heard of"},
        {"type": "node_register_ack", "node_id": "again", "message": "", "status": ""},
        [[[[]]]],
    ]
    hostile = [
        assign("h-1", src_lang="no language at all", audio=b"x"),
        assign("h-2", audio=b"\xff\xfe"),
        assign("h-3", audio_format="\0" * 100),
        assign("h-4", audio_format="wav", audio=b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff"),
        assign("h-5", src_lang="auto"),
        assign("h-6", tgt_lang="xx"),
    ]

    async def story() -> None:
        async with registered(Node(_echo(), slots=20)) as peer:
            await peer.send(Error(code="INVALID_MESSAGE", message="you said nonsense"))
            await peer.send_raw(b"\xc1")
            await peer.send_raw(b"")
            for message in nonsense:
                await peer.send_raw(msgspec.msgpack.encode(message))
            for job in hostile:
                await peer.send(job)
                result = await peer.expect(JobResult)
                assert (result.job_id, result.success) == (job.job_id, False)
                assert result.error is not None
                assert result.error.code in {"INVALID_MESSAGE", "UNSUPPORTED_FEATURE", "MODEL_NOT_AVAILABLE"}
            await peer.send(assign("fine"))
            assert (await peer.expect(JobResult)).success

    asyncio.run(story())


def test_shutdown_lets_the_running_job_end_and_drain_keeps_the_node() -> None:
    async def story() -> None:
        gate = Gate()
        async with fake_scheduler() as scheduler, running(gate.node(), scheduler.url) as task:
            peer = await scheduler.peer()
            await peer.welcome()
            await peer.send(NodeControl(command="drain"))
            await peer.send(assign())
            await gate.entered.get()
            await peer.send(NodeControl(command="shutdown"))
            await peer.expect(NodeDrain)
            assert not task.done()
            gate.open.set()
            assert (await peer.expect(JobResult)).success
            async with asyncio.timeout(WAIT_S):
                await task

    asyncio.run(story())


def test_a_job_longer_than_the_grace_is_left_to_others() -> None:
    async def story() -> None:
        gate = Gate()
        node = gate.node(grace_s=0)
        async with fake_scheduler() as scheduler, running(node, scheduler.url) as task:
            peer = await scheduler.peer()
            await peer.welcome()
            await peer.send(assign())
            await gate.entered.get()
            node.stop()
            async with asyncio.timeout(WAIT_S):
                await task
            assert gate.left == ["hello"]
            assert not [message for message in peer.seen if isinstance(message, JobResult)]

    asyncio.run(story())
