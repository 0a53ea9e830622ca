"""Real processes, real sockets, real signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from dragoman.children import Child, free_port
from dragoman.protocol.codec import session_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import SessionInit, SessionInitAck, TranslationResult, UiEvent, Utterance
from dragoman.websocket import ClientSocket, SocketClosedError

pytestmark = pytest.mark.slow

SLOW_NODE = """
import asyncio
from dragoman.node import Audio, Node, Services
services = Services()
@services.translates(("en", "pt"))
async def translate(text: str, src: str, tgt: str) -> str:
    await asyncio.sleep(float(text))
    return f"after {text} s"
@services.speaks("pt")
async def speak(text: str, lang: str) -> Audio:
    return Audio(data=bytes(320), sample_rate=16_000)
Node(services, slots=4, node_id="{name}").run("{url}/ws/node")
"""


@contextmanager
def _scheduler(*settings: str) -> Iterator[tuple[Child, str]]:
    port = free_port()
    # The nodes tell the truth of this machine, and a machine that runs tests is busy: here that is no reason to wait.
    given = (f"server.port={port}", "scheduler.load_balancer.resource_threshold=100", *settings)
    words = [word for item in given for word in ("--set", item)]
    with Child("scheduler", ["-m", "dragoman", "serve", *words]) as child:
        child.wait_healthy(port)
        yield child, f"ws://127.0.0.1:{port}"


@contextmanager
def _slow_node(url: str, name: str, scheduler: Child) -> Iterator[Child]:
    with Child(name, ["-c", SLOW_NODE.replace("{url}", url).replace("{name}", name)]) as child:
        scheduler.wait_for(f"node_id={name} status=ready")
        yield child


class _Client:
    """A session with nothing hidden."""

    def __init__(self, socket: ClientSocket) -> None:
        self.socket = socket
        self.session_id = ""

    @classmethod
    async def open(cls, url: str) -> _Client:
        client = cls(await ClientSocket.connect(f"{url}/ws/session"))
        await client.say(SessionInit(client_version="1", platform="test", src_lang="en", tgt_lang="pt"))
        client.session_id = (await client.hears(SessionInitAck)).session_id
        return client

    async def say(self, message: msgspec.Struct) -> None:
        await self.socket.send(msgspec.json.encode(message))

    async def speak(self, text: str, index: int) -> None:
        await self.say(
            Utterance(
                session_id=self.session_id,
                utterance_index=index,
                manual_cut=True,
                src_lang="en",
                tgt_lang="pt",
                audio=text.encode(),
                audio_format="text",
                sample_rate=0,
            )
        )

    async def hears(self, kind: type[Any], within_s: float = 10) -> Any:
        async with asyncio.timeout(within_s):
            while True:
                message = session_client_codec(is_binary=False).decode(await self.socket.receive())
                if isinstance(message, kind):
                    return message


def test_sigterm_lets_running_jobs_end_refuses_new_ones_and_closes_sessions_for_a_resume() -> None:
    async def story() -> None:
        with _scheduler() as (scheduler, url), _slow_node(url, "n1", scheduler):
            client = await _Client.open(url)
            await client.speak("1.5", 0)
            await client.hears(UiEvent)
            scheduler.send_signal(signal.SIGTERM)
            await asyncio.to_thread(scheduler.wait_for, "draining")
            await client.speak("0", 1)
            refused = await client.hears(Error)
            assert refused.code == "SCHEDULER_DRAINING"
            result = await client.hears(TranslationResult)
            assert result.text_translated == "after 1.5 s"
            with pytest.raises(SocketClosedError) as closed:
                await client.hears(TranslationResult)
            assert closed.value.code == 1012
            assert await asyncio.to_thread(scheduler.wait, 5) == 0

    asyncio.run(story())


def test_a_second_sigterm_stops_at_once() -> None:
    async def story() -> None:
        with _scheduler() as (scheduler, url), _slow_node(url, "n1", scheduler):
            client = await _Client.open(url)
            await client.speak("25", 0)
            await client.hears(UiEvent)
            scheduler.send_signal(signal.SIGTERM)
            await asyncio.to_thread(scheduler.wait_for, "draining")
            scheduler.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(scheduler.wait, 5) == 0

    asyncio.run(story())


def test_the_grace_bounds_a_drain_and_what_did_not_end_is_told() -> None:
    async def story() -> None:
        with _scheduler("server.shutdown_grace_seconds=1") as (scheduler, url), _slow_node(url, "n1", scheduler):
            client = await _Client.open(url)
            await client.speak("25", 0)
            await client.hears(UiEvent)
            scheduler.send_signal(signal.SIGTERM)
            error = await client.hears(Error, within_s=5)
            assert error.code == "SCHEDULER_DRAINING"
            assert error.details["utterance_index"] == 0
            assert await asyncio.to_thread(scheduler.wait, 5) == 0

    asyncio.run(story())


def test_a_killed_node_loses_its_job_to_another_within_a_second() -> None:
    async def story() -> None:
        with _scheduler() as (scheduler, url), _slow_node(url, "first", scheduler) as first:
            client = await _Client.open(url)
            await client.speak("6", 0)
            await client.hears(UiEvent)
            with _slow_node(url, "second", scheduler):
                first.send_signal(signal.SIGKILL)
                await asyncio.to_thread(scheduler.wait_for, "reason=node_lost", 1)
                result = await client.hears(TranslationResult, within_s=20)
                assert result.text_translated == "after 6 s"

    asyncio.run(story())


def test_a_taken_port_is_one_readable_line_and_exit_code_1() -> None:
    with _scheduler() as (_, url):
        port = url.rpartition(":")[2]
        with Child("second", ["-m", "dragoman", "serve", "--set", f"server.port={port}"]) as second:
            assert second.wait(10) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in second.said()
            assert "Traceback" not in second.said()


def test_a_shared_store_that_is_not_there_is_told_in_one_line_and_exits_with_2() -> None:
    address = f"scheduler.phase2.redis.url=redis://127.0.0.1:{free_port()}"
    settings = ["--set", "scheduler.phase2.enabled=true", "--set", address, "--set", "server.port=0"]
    with Child("scheduler", ["-m", "dragoman", "serve", *settings]) as child:
        assert child.wait(10) == 2
        assert child.said().startswith("[scheduler.phase2.redis] the shared store cannot be used: 127.0.0.1:")
        assert "cannot be reached" in child.said()
        assert child.said().count("\n") == 1


@pytest.mark.parametrize(
    "setting",
    ['auth.mode="jwt"', "server.port=99999", "a.b=1"],
)
def test_what_is_wrong_or_not_built_yet_starts_nothing_and_exits_with_2(setting: str) -> None:
    with Child("scheduler", ["-m", "dragoman", "serve", "--set", setting]) as child:
        assert child.wait(10) == 2
        assert "Traceback" not in child.said()
        assert setting.partition("=")[0].rpartition(".")[2] in child.said()
