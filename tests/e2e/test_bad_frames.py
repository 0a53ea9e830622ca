"""What becomes of a peer that does not keep to WebSocket (RFC 6455)? It goes; nobody else notices."""

from __future__ import annotations

import asyncio
import os
from random import Random

import msgspec
import pytest

from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import ServerHeartbeat
from tests.e2e.peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, a_scene, ws_frame
from tests.support.builders import a_client_heartbeat, a_node_register, a_session_init

PATHS = pytest.mark.parametrize("path", ["/ws/session", "/ws/node"])

HELLO = {
    "/ws/session": msgspec.json.encode(a_session_init()),
    "/ws/node": msgspec.json.encode(a_node_register("n")),
}

BROKEN: dict[str, tuple[bytes, int]] = {
    "an unmasked frame": (ws_frame(b"{}", masked=False), 1002),
    "the first reserved bit": (ws_frame(b"{}", reserved=4), 1002),
    "the second reserved bit": (ws_frame(b"{}", reserved=2), 1002),
    "the third reserved bit": (ws_frame(b"{}", reserved=1), 1002),
    "reserved bits on a pong": (ws_frame(b"", PONG, reserved=7), 1002),
    "reserved bits on a fragment": (ws_frame(b"{", fin=False) + ws_frame(b"}", CONTINUATION, reserved=4), 1002),
    "a lone continuation": (ws_frame(b"{}", CONTINUATION), 1002),
    "a lone unfinished continuation": (ws_frame(b"{}", CONTINUATION, fin=False), 1002),
    "a new message inside another": (ws_frame(b"{", fin=False) + ws_frame(b"{}"), 1002),
    "a new fragment inside another": (ws_frame(b"{", fin=False) + ws_frame(b"{", BINARY, fin=False), 1002),
    "opcode 3": (ws_frame(b"{}", 3), 1002),
    "opcode 11": (ws_frame(b"{}", 11), 1002),
    "a ping of 126 bytes": (ws_frame(bytes(126), PING), 1002),
    "a ping in fragments": (ws_frame(b"", PING, fin=False), 1002),
    "a close in fragments": (ws_frame(b"", CLOSE, fin=False), 1002),
    "a close code of one byte": (ws_frame(b"\x03", CLOSE), 1002),
    "a close code that must not be sent": (ws_frame(b"\x03\xed", CLOSE), 1002),
    "a close code of nobody": (ws_frame(b"\x00\x07", CLOSE), 1002),
    "a close reason that is no UTF-8": (ws_frame(b"\x03\xe8\xff\xfe", CLOSE), 1007),
    "a length of 2**62": (ws_frame(b"", length=2**62), 1009),
    "a length of 2**63": (ws_frame(b"", length=2**63), 1002),
    "a length of 2**64 - 1": (ws_frame(b"", length=2**64 - 1), 1002),
    "a length told too long": (bytes([0x81, 0x80 | 126, 0, 2]) + bytes(4) + b"{}", 1002),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 1002),
    "an HTTP request": (b"GET /health HTTP/1.1\r\n\r\n", 1002),
}


@PATHS
@pytest.mark.parametrize("is_open", [False, True], ids=["opening", "open"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_ends_the_connection_with_its_code(name: str, is_open: bool, path: str) -> None:
    async def story() -> None:
        frames, code = BROKEN[name]
        async with a_scene() as scene:
            raw = await scene.upgraded(path)
            raw.write((ws_frame(HELLO[path]) if is_open else b"") + frames)
            assert await raw.close_code() == code

    asyncio.run(story())


@PATHS
@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_the_connection(path: str, seed: int) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded(path)
            raw.write(ws_frame(HELLO[path]))
            noise = Random(seed)
            end = asyncio.create_task(raw.ends())
            while not end.done():
                raw.write(noise.randbytes(200))
                await asyncio.sleep(0)

    asyncio.run(story())


@PATHS
@pytest.mark.parametrize("length", [1, 2, 4, 6, 7, 50])
def test_half_a_frame_and_then_nothing_is_a_lost_connection(path: str, length: int) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded(path)
            raw.write(ws_frame(HELLO[path])[:length])
            await scene.bystanders.translates()
            await raw.close()

    asyncio.run(story())


def test_a_close_is_answered_with_a_close() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for payload in (b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0ours"):
                raw = await scene.upgraded()
                raw.write(ws_frame(HELLO["/ws/session"]) + ws_frame(payload, CLOSE))
                frames = await raw.frames()
                assert [opcode for opcode, _ in frames] == [TEXT, CLOSE]

    asyncio.run(story())


def test_frames_behind_a_close_are_not_heard() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded()
            raw.write(ws_frame(b"\x03\xe8", CLOSE) + ws_frame(HELLO["/ws/session"]))
            assert [opcode for opcode, _ in await raw.frames()] == [CLOSE]
            assert len(scene.app.parts.router.sessions) == 1

    asyncio.run(story())


def test_a_message_may_come_byte_by_byte_and_in_fragments_with_pings_between() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded()
            hello = HELLO["/ws/session"]
            frames = ws_frame(hello[:1], fin=False)
            for at in range(1, len(hello)):
                frames += ws_frame(b"p", PING) + ws_frame(hello[at : at + 1], CONTINUATION, fin=False)
            frames += ws_frame(b"", CONTINUATION) + ws_frame(b"", CLOSE)
            for at in range(0, len(frames), 7):
                raw.write(frames[at : at + 7])
                if at % 70 == 0:
                    await asyncio.sleep(0)
            opcodes = [opcode for opcode, _ in await raw.frames()]
            assert opcodes == [PONG] * (len(hello) - 1) + [TEXT, CLOSE]

    asyncio.run(story())


# --- size


MESSAGE_BYTES = 8 * 1024 * 1024


@pytest.mark.parametrize("parts", [1, 2, 100])
def test_eight_mebibytes_are_taken_and_a_byte_more_ends_the_connection(parts: int) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            for size, is_taken in ((MESSAGE_BYTES, True), (MESSAGE_BYTES + 1, False)):
                heartbeat = msgspec.json.encode(a_client_heartbeat(session_id=pair.session.session_id))
                text = (heartbeat[:-1] + b" " * (size - len(heartbeat)) + b"}").decode()
                step = -(-size // parts)
                pieces = [text[at : at + step] for at in range(0, size, step)]
                await pair.session.say_raw(pieces if parts > 1 else text)
                if is_taken:
                    assert isinstance(await pair.session.hears(ServerHeartbeat), ServerHeartbeat)
                    await pair.translates()
                else:
                    code, _ = await pair.session.is_closed_with()
                    assert code == 1009

    asyncio.run(story())


@PATHS
def test_a_message_that_is_too_big_is_refused_before_it_has_come(path: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded(path)
            raw.write(ws_frame(b"", length=MESSAGE_BYTES + 1))
            assert await raw.close_code() == 1009

    asyncio.run(story())


@PATHS
def test_fragments_without_end_are_too_big_together(path: str) -> None:
    async def story() -> None:
        async with a_scene(server__max_message_bytes=5000) as scene:
            raw = await scene.upgraded(path)
            raw.write(ws_frame(b"", fin=False) + ws_frame(b" ", CONTINUATION, fin=False) * 5001)
            assert await raw.close_code() == 1009

    asyncio.run(story())


def test_empty_fragments_are_nothing() -> None:
    async def story() -> None:
        async with a_scene(server__max_message_bytes=5000) as scene:
            raw = await scene.upgraded()
            raw.write(ws_frame(b"", fin=False) + ws_frame(b"", CONTINUATION, fin=False) * 6000)
            raw.write(ws_frame(HELLO["/ws/session"], CONTINUATION) + ws_frame(b"", CLOSE))
            assert [opcode for opcode, _ in await raw.frames()] == [TEXT, CLOSE]

    asyncio.run(story())


# --- payloads


DEEP = 100_000

BAD_PAYLOADS: dict[str, bytes] = {
    "nothing": b"",
    "a zero byte": b"\0",
    "bad UTF-8": b'{"type":"client_heartbeat","session_id":"\xff\xfe","timestamp":1}',
    "a surrogate": b'{"type":"client_heartbeat","session_id":"\xed\xa0\x80","timestamp":1}',
    "half a surrogate pair": b'{"type":"client_heartbeat","session_id":"\\ud800","timestamp":1}',
    "a byte order mark": b'\xef\xbb\xbf{"type":"client_heartbeat","session_id":"s","timestamp":1}',
    "a list": b"[]",
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists without end": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep in an unknown field": b'{"type":"client_heartbeat","session_id":"s","timestamp":1,"x":'
    + b"[" * DEEP
    + b"]" * DEEP
    + b"}",
    "deep in a field": b'{"type":"node_error","node_id":"n","code":"c","message":"m","details":'
    + b'{"a":' * DEEP
    + b"1"
    + b"}" * DEEP
    + b"}",
    "NaN": b'{"type":"client_heartbeat","session_id":"s","timestamp":NaN}',
    "Infinity": b'{"type":"client_heartbeat","session_id":"s","timestamp":Infinity}',
    "1e999": b'{"type":"client_heartbeat","session_id":"s","timestamp":1e999}',
    "a number of 100,000 digits": b'{"type":"client_heartbeat","session_id":"s","timestamp":' + b"1" * DEEP + b"}",
    "two objects": b'{"type":"client_heartbeat"}{"type":"client_heartbeat"}',
    "a type twice": b'{"type":"client_heartbeat","type":7}',
    "single quotes": b"{'type':'client_heartbeat'}",
    "a comma too many": b'{"type":"client_heartbeat",}',
}

BAD_PACKED: dict[str, bytes] = {
    "nothing": b"",
    "never used": b"\xc1",
    "deep lists": b"\x91" * DEEP + b"\x01",
    "deep objects": b"\x81\xa1a" * DEEP + b"\x01",
    "a list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "an object of 4 billion": b"\xdf\xff\xff\xff\xff",
    "a text of 4 billion": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 billion": b"\x81\xa4type\xc6\xff\xff\xff\xff",
    "an extension": b"\xd4\x05\x01",
    "a time out of range": b"\xc7\x0c\xff" + b"\xff" * 12,
    "an object as a key": b"\x81\x80\x01",
    "an object as a key further in": b"\x82\xa4type\xa9utterance\xa1x\x81\x81\xa1a\x01\x01",
    "bad UTF-8": b"\x81\xa4type\xa2\xff\xfe",
    "something behind it": b"\x80\x80",
}


@PATHS
@pytest.mark.parametrize("name", [f"json {name}" for name in BAD_PAYLOADS] + [f"msgpack {name}" for name in BAD_PACKED])
def test_a_frame_that_holds_no_message_is_answered_and_the_connection_lives_on(name: str, path: str) -> None:
    async def story() -> None:
        form, _, which = name.partition(" ")
        is_binary = form == "msgpack"
        payload = BAD_PACKED[which] if is_binary else BAD_PAYLOADS[which]
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            peer = pair.session if path == "/ws/session" else pair.node
            for _ in range(19):
                await peer.say_raw(payload, text=not is_binary)
                error = await peer.hears(Error)
                assert error.code == "INVALID_MESSAGE"
                assert len(error.message) < 600
            await pair.translates()
            await scene.bystanders.translates()

    asyncio.run(story())


def test_a_flood_of_pings_is_answered_and_hurts_nobody() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            raw = await scene.upgraded()
            raw.write(ws_frame(HELLO["/ws/session"]) + ws_frame(os.urandom(125), PING) * 5000 + ws_frame(b"", CLOSE))
            frames = await raw.frames()
            assert [opcode for opcode, _ in frames].count(PONG) == 5000

    asyncio.run(story())


@pytest.mark.parametrize("payload", [b"", b"0", b"9" * 125, b"-1", b"\xff" * 125, "٣".encode()])
def test_a_pong_that_nobody_asked_for_says_nothing(payload: bytes) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for path, hello in HELLO.items():
                raw = await scene.upgraded(path)
                raw.write(ws_frame(payload, PONG) + ws_frame(hello) + ws_frame(payload, PONG) + ws_frame(b"", CLOSE))
                assert [opcode for opcode, _ in await raw.frames()] == [TEXT, CLOSE]

    asyncio.run(story())
