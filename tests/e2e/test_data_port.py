"""Who may connect to the data port, and what becomes of those who do not keep to HTTP, or never say anything?"""

from __future__ import annotations

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from dragoman.edge import server as edge_server
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL
from dragoman.protocol.node_messages import JobAssign
from dragoman.protocol.session_messages import (
    SessionInitAck,
    TranslationResult,
)
from tests.e2e.peers import Scene, a_scene, handshake, until
from tests.support.builders import a_session_init


def status(answer: str) -> int:
    """The status of an HTTP answer; 0 when the connection was ended without one."""
    return int(answer.split(" ", 2)[1]) if answer else 0


async def the_status(scene: Scene, request: bytes) -> int:
    """Whether and how a request is answered."""
    raw = await scene.raw(request)
    answer = status(await raw.answer())
    await raw.close()
    return answer


# --- HTTP


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ws",
        "/ws/sessions",
        "/ws/session/",
        "/health/",
        "//health",
        "/ws/../health",
        "/%77s/session",
        "//[",
        "*",
        "x",
    ],
)
def test_what_is_not_here_is_answered_with_404(path: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            assert await the_status(scene, handshake(path)) == 404

    asyncio.run(story())


def test_health_is_200_and_while_draining_503_for_all() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert await the_status(scene, get) == 200
            assert await the_status(scene, get.replace(b"/health", b"/health?verbose=1")) == 200
            scene.app.parts.dispatcher.is_draining = True
            assert await the_status(scene, get) == 503
            for path in ("/ws/session", "/ws/node"):
                assert await the_status(scene, handshake(path)) == 503
            scene.app.parts.dispatcher.is_draining = False

    asyncio.run(story())


GARBAGE: dict[str, bytes] = {
    "POST /health": b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd",
    "no request line": b"\r\n\r\n",
    "half a request line": b"GET\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    "no path": b"GET  HTTP/1.1\r\n\r\n",
    "HTTP of the future": b"GET /health HTTP/9.9\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "a header with control characters": b"GET /health HTTP/1.1\r\nA: \x00\x01\r\n\r\n",
    "a body": b"GET /health HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd",
    "two lengths": b"GET /health HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\nabcd",
    "a length that is none": b"GET /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "chunks": b"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a thousand headers": b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    "an upgrade to something else": handshake(Upgrade="h2c"),
    "an upgrade without a key": handshake(Sec_WebSocket_Key=None),
    "an upgrade with a bad key": handshake(Sec_WebSocket_Key="short"),
    "an upgrade of an old version": handshake(Sec_WebSocket_Version="6"),
    "an upgrade that is not connected": handshake(Connection="close"),
    "an upgrade without a connection": handshake(Connection=None),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_proper_request_is_answered_with_400_and_leaves_nothing_behind(name: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for _ in range(3):
                assert await the_status(scene, GARBAGE[name]) == 400
            assert len(scene.app.parts.open.sessions) == len(scene.app.parts.open.nodes) == 1

    asyncio.run(story())


def test_a_websocket_path_without_an_upgrade_is_answered_with_426() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            assert await the_status(scene, b"GET /ws/session HTTP/1.1\r\nHost: x\r\n\r\n") == 426

    asyncio.run(story())


@pytest.mark.parametrize("how", ["at once", "in one line", "without an end"])
def test_headers_of_20_kib_end_the_connection(how: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            lines = {
                "at once": b"A: b\r\n" * 4000 + b"\r\n",
                "in one line": b"A: " + b"b" * 20_480 + b"\r\n\r\n",
                "without an end": b"A: " + b"b" * 20_480,
            }[how]
            assert await the_status(scene, b"GET /health HTTP/1.1\r\n" + lines) in (0, 400, 431)

    asyncio.run(story())


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade,keep-alive"])
def test_an_upgrade_may_be_one_of_several_connection_options(connection: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.raw(handshake(Connection=connection))
            assert status(await raw.answer()) == 101

    asyncio.run(story())


def test_a_handshake_that_never_ends_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_server, "_HANDSHAKE_S", 0.3)

    async def story() -> None:
        async with a_scene() as scene:
            silent, slow = await scene.raw(), await scene.raw()

            async def drip() -> None:
                for byte in handshake():
                    slow.write(bytes([byte]))
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            assert await silent.ends(2) == b""
            assert await slow.ends(2) == b""
            dripping.cancel()

    asyncio.run(story())


# --- subprotocols


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ([MSGPACK_SUBPROTOCOL], MSGPACK_SUBPROTOCOL),
        (["chat", MSGPACK_SUBPROTOCOL], MSGPACK_SUBPROTOCOL),
        (["chat"], None),
        (["dragoman.msgpack.v2"], None),
    ],
)
def test_the_subprotocol_is_echoed_when_it_is_ours(offered: list[str] | None, chosen: str | None) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for path in ("/ws/session", "/ws/node"):
                names = None if offered is None else [Subprotocol(name) for name in offered]
                async with connect(f"ws://127.0.0.1:{scene.app.port}{path}", subprotocols=names) as socket:
                    assert socket.subprotocol == chosen

    asyncio.run(story())


def test_subprotocols_may_be_offered_in_several_headers() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            two = f"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: {MSGPACK_SUBPROTOCOL}\r\n\r\n".encode()
            raw = await scene.raw(handshake()[:-2] + two)
            assert f"Sec-WebSocket-Protocol: {MSGPACK_SUBPROTOCOL}" in await raw.answer()

    asyncio.run(story())


# --- too many


def test_more_sessions_than_may_be_are_refused_and_a_free_place_is_taken_again() -> None:
    async def story() -> None:
        async with a_scene(server__max_sessions=2) as scene:
            second = await scene.a_session()
            with pytest.raises(InvalidStatus) as refused:
                await scene.a_session()
            assert refused.value.response.status_code == 503
            assert await the_status(scene, handshake("/ws/node")) != 503
            await second.close()
            await until(lambda: len(scene.app.parts.open.sessions) == 1)
            await (await scene.a_session()).open()

    asyncio.run(story())


def test_more_nodes_than_may_be_are_refused() -> None:
    async def story() -> None:
        async with a_scene(server__max_nodes=2) as scene:
            await scene.a_node()
            with pytest.raises(InvalidStatus) as refused:
                await scene.a_node()
            assert refused.value.response.status_code == 503
            await (await scene.a_session()).open()

    asyncio.run(story())


def test_refused_upgrades_take_nobodys_place() -> None:
    async def story() -> None:
        async with a_scene(server__max_sessions=2) as scene:
            for _ in range(10):
                assert await the_status(scene, handshake(Sec_WebSocket_Key=None)) == 400
            await (await scene.a_session()).open()

    asyncio.run(story())


@pytest.mark.slow
def test_a_thousand_connections_that_never_say_anything_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            silent = [await scene.upgraded(path) for path in ("/ws/session", "/ws/node") for _ in range(500)]
            await scene.bystanders.translates()
            monkeypatch.setattr(edge_server, "_OPENING_MS", 500)
            codes = await asyncio.gather(*(raw.close_code() for raw in silent))
            assert set(codes) == {1008}
            await until(lambda: len(scene.app.parts.open.sessions) == len(scene.app.parts.open.nodes) == 1)

    asyncio.run(story())


def test_a_client_that_reconnects_in_a_loop_hurts_nobody() -> None:
    async def story() -> None:
        async with a_scene(server__max_sessions=20) as scene:
            told: list[str] = []
            for turn in range(120):
                session = await scene.a_session()
                await session.say(a_session_init())
                answer = await session.next()
                told.append("ack" if isinstance(answer, SessionInitAck) else answer.code)
                if turn % 2:
                    session.cut()
                else:
                    await session.close()
                if turn % 10 == 0:
                    await scene.bystanders.translates()
            assert told == ["ack"] * 39 + ["RATE_LIMITED"] * 81

    asyncio.run(story())


# --- lost connections


@pytest.mark.parametrize("is_binary", [False, True], ids=["json", "msgpack"])
@pytest.mark.parametrize("when", ["before the job is done", "after the job is done", "while it is sent"])
def test_a_connection_cut_in_mid_job_is_resumed_with_exactly_one_end(when: str, is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            await pair.session.speak("hello", tgt_lang="pt")
            job = await pair.node.hears(JobAssign)
            session = scene.app.parts.router.sessions[pair.session.session_id]  # type: ignore[index]
            if when == "while it is sent":
                await pair.node.finish(job, "done")
            pair.session.cut()
            if when == "after the job is done":
                await until(lambda: session.detached_ms is not None)
                await pair.node.finish(job, "done")
                await until(lambda: not len(scene.app.parts.dispatcher.jobs))
            again = await scene.a_session(is_binary=not is_binary)
            ack = await again.open(resume_token=pair.session.resume_token)
            assert ack.session_id == pair.session.session_id
            if when == "before the job is done":
                await pair.node.finish(job, "done")
            ends = [await again.hears(TranslationResult)]
            await again.hears_nothing_else()
            assert [(end.utterance_index, end.text_translated) for end in ends] == [(0, "done")]

    asyncio.run(story())
