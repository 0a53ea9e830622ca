"""Does a node that is a process of its own stop well?"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from dragoman.protocol.node_messages import JobResult, JobStarted, NodeDrain, NodeHeartbeat
from tests.node.fake_scheduler import WAIT_S, Peer, assign, fake_scheduler

pytestmark = pytest.mark.slow

_PROGRAM = """
import sys, time
from dragoman.node import Node, Services

services = Services()

@services.translates(("en", "pt"))
def translate(text, src, tgt):
    time.sleep(float(text))
    return "done"

Node(services).run(sys.argv[1])
"""


async def _start(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, url, stdout=asyncio.subprocess.DEVNULL)


async def _begin_job(peer: Peer, seconds: str) -> None:
    await peer.welcome()
    await peer.send(assign(audio=seconds.encode()))
    await peer.expect(JobStarted)


async def _end(process: asyncio.subprocess.Process) -> int:
    try:
        async with asyncio.timeout(WAIT_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


def test_sigterm_says_so_finishes_the_job_and_ends_with_0() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            process = await _start(scheduler.url)
            peer = await scheduler.peer()
            await _begin_job(peer, "0.5")
            process.send_signal(signal.SIGTERM)
            await peer.expect(NodeDrain)
            assert (await peer.expect(JobResult)).text_translated == "done"
            assert await _end(process) == 0

    asyncio.run(story())


def test_a_second_sigterm_ends_it_at_once() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            process = await _start(scheduler.url)
            peer = await scheduler.peer()
            await _begin_job(peer, "60")
            process.send_signal(signal.SIGTERM)
            await peer.expect(NodeDrain)
            process.send_signal(signal.SIGTERM)
            assert await _end(process) == -signal.SIGTERM

    asyncio.run(story())


def test_the_example_runs() -> None:
    example = Path("examples/own_node.py").read_text()

    async def story() -> None:
        async with fake_scheduler() as scheduler:
            source = example.replace("ws://127.0.0.1:5010/ws/node", scheduler.url)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", source, stdout=asyncio.subprocess.DEVNULL, env=dict(os.environ)
            )
            peer = await scheduler.peer()
            await peer.welcome()
            await peer.expect(NodeHeartbeat)
            await peer.send(assign())
            assert (await peer.expect(JobResult)).text_translated == "hello [en to pt]"
            process.send_signal(signal.SIGTERM)
            assert await _end(process) == 0

    asyncio.run(story())
