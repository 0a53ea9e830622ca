"""What becomes of a peer that does not read what it is sent? It is cut off at a bound, and loses nothing silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from dragoman.edge import connection as edge_connection
from dragoman.edge.connection import Connection
from dragoman.loop import run as run_on_the_servers_loop
from dragoman.protocol.codec import session_client_codec
from dragoman.protocol.node_messages import JobAssign
from dragoman.protocol.session_messages import MissingResult, SessionInitAck, TranslationResult
from tests.e2e.peers import CLOSE, PING, TEXT, Node, Raw, Scene, a_scene, until, ws_frame
from tests.support.builders import a_client_heartbeat, a_session_init, a_text

QUEUE_BYTES = 262_144
RESULT_BYTES = 200_000
LOOPS = pytest.mark.parametrize("run", [asyncio.run, run_on_the_servers_loop], ids=["asyncio", "the server's loop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


class Deaf:
    """A session that speaks and does not read."""

    def __init__(self, raw: Raw, connection: Connection, ack: SessionInitAck) -> None:
        self.raw = raw
        self.connection = connection
        self.ack = ack
        self.spoken = 0

    @classmethod
    async def enter(cls, scene: Scene) -> Deaf:
        """Open a session, and from then on read nothing."""
        before = set(scene.app.parts.open.sessions)
        raw = await scene.upgraded()
        raw.write(ws_frame(msgspec.json.encode(a_session_init())))
        head = await raw.reader.readexactly(4)
        ack = session_client_codec(is_binary=False).decode(
            await raw.reader.readexactly(int.from_bytes(head[2:4], "big"))
        )
        assert isinstance(ack, SessionInitAck)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = set(scene.app.parts.open.sessions) - before
        return cls(raw, connection, ack)

    def speak(self) -> None:
        """Say something all the same."""
        utterance = a_text("hello", session_id=self.ack.session_id, utterance_index=self.spoken)
        self.raw.write(ws_frame(msgspec.json.encode(utterance)))
        self.spoken += 1

    def say(self, frame: bytes) -> None:
        """Send bytes."""
        self.raw.write(frame)

    @property
    def waiting_bytes(self) -> int:
        """How much the server holds for it."""
        transport = self.connection._transport
        return 0 if transport is None else transport.underlying_transport.get_write_buffer_size()

    async def reads_again(self) -> list[tuple[int, bytes]]:
        """Read what came until the end."""
        self.raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        return await self.raw.frames()


async def _a_node(scene: Scene) -> Node:
    node = await scene.a_node()
    await node.register("n", "pt")
    return node


async def _fill_up(scene: Scene, deaf: Deaf, node: Node) -> int:
    """Send results until the session is cut off; the most that ever waited for it."""
    most, jobs = 0, scene.app.parts.dispatcher.jobs
    running = len(jobs)
    for _ in range(200):
        deaf.speak()
        await node.finish(await node.hears(JobAssign), "done", tts_audio=bytes(RESULT_BYTES))
        await until(lambda: len(jobs) == running)
        most = max(most, deaf.waiting_bytes)
        if deaf.connection._transport is None or deaf.connection._transport.is_close_frame_sent:
            return most
    raise AssertionError("it was never cut off")


@LOOPS
def test_a_session_that_does_not_read_is_cut_off_at_the_bound_with_1013(run: Run) -> None:
    async def story() -> None:
        async with a_scene(server__send_queue_bytes=QUEUE_BYTES) as scene:
            node, deaf = await _a_node(scene), await Deaf.enter(scene)
            most = await _fill_up(scene, deaf, node)
            assert most < QUEUE_BYTES + 2 * RESULT_BYTES
            await scene.bystanders.translates()
            frames = await deaf.reads_again()
            assert frames[-1][0] == CLOSE
            assert int.from_bytes(frames[-1][1][:2], "big") == 1013

    run(story())


@LOOPS
def test_the_jobs_of_a_session_that_was_cut_off_go_on_and_each_has_one_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_connection, "_LINGER_S", 0.1)

    async def story() -> None:
        async with a_scene(server__send_queue_bytes=QUEUE_BYTES, scheduler__results__gap_timeout_ms=0) as scene:
            node, deaf = await _a_node(scene), await Deaf.enter(scene)
            deaf.speak()
            first = await node.hears(JobAssign)
            await _fill_up(scene, deaf, node)
            await until(lambda: deaf.connection.is_gone)
            await node.finish(first, "while it was away", tts_audio=b"")
            session = await scene.a_session()
            await session.open(resume_token=deaf.ack.resume_token, terminals_received=0)
            ends: dict[int, str] = {}
            while len(ends) < deaf.spoken:
                told = await session.next()
                if isinstance(told, TranslationResult | MissingResult):
                    assert told.utterance_index not in ends
                    ends[told.utterance_index] = getattr(told, "text_translated", "missing")
            assert ends[0] == "while it was away"
            assert set(ends.values()) == {"while it was away", "done", "missing"}

    run(story())


@LOOPS
def test_what_is_not_read_within_the_linger_is_dropped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_connection, "_LINGER_S", 0.1)

    async def story() -> None:
        async with a_scene(server__send_queue_bytes=QUEUE_BYTES) as scene:
            node, deaf = await _a_node(scene), await Deaf.enter(scene)
            await _fill_up(scene, deaf, node)
            await until(lambda: deaf.connection not in scene.app.parts.open.sessions)

    run(story())


@LOOPS
@pytest.mark.parametrize("what", ["pings", "heartbeats", "bad messages of unknown types", "a goodbye"])
def test_one_that_asks_and_does_not_read_the_answers_is_cut_off(
    what: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_connection, "_LINGER_S", 0.1)

    async def story() -> None:
        async with a_scene(server__send_queue_bytes=QUEUE_BYTES) as scene:
            node, deaf = await _a_node(scene), await Deaf.enter(scene)
            if what == "a goodbye":
                while deaf.waiting_bytes < 50_000:
                    deaf.speak()
                    await node.finish(await node.hears(JobAssign), "done", tts_audio=bytes(30_000))
                    await until(lambda: not len(scene.app.parts.dispatcher.jobs))
            heartbeat = msgspec.json.encode(a_client_heartbeat(session_id=deaf.ack.session_id))
            asked = {
                "pings": ws_frame(bytes(125), PING),
                "heartbeats": ws_frame(heartbeat),
                "bad messages of unknown types": ws_frame(b"{}", TEXT) + ws_frame(heartbeat),
                "a goodbye": ws_frame(b"", CLOSE),
            }[what]
            while deaf.connection in scene.app.parts.open.sessions:
                deaf.say(asked * 500)
                assert deaf.waiting_bytes < 2 * QUEUE_BYTES
                await asyncio.sleep(0.001)
            await scene.bystanders.translates()

    run(story())
