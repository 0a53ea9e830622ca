"""Is there anything a peer can say that stops the others? Thousands of valid messages, spoiled at random, find none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.peers import BINARY, TEXT, Raw, Scene, a_scene, handshake, until, ws_frame
from tests.support.builders import a_node_register, a_session_init
from tests.support.messages import DIRECTIONS, json_values, messages

PATHS = {"/ws/session": "session_server", "/ws/node": "node_server"}
HELLO = {"/ws/session": a_session_init(), "/ws/node": a_node_register("fuzz", capability_by_type=[])}


def _spoil(message: Any, draw: st.DrawFn) -> Any:
    """The message, with something in it left out, put in another's place, or swapped for anything."""
    if isinstance(message, list):
        return [_spoil(item, draw) if draw(st.booleans()) else item for item in message]
    if not isinstance(message, dict) or not message:
        return draw(json_values)
    key = draw(st.sampled_from(sorted(message)))
    match draw(st.sampled_from(["drop", "swap", "anything", "deeper", "more"])):
        case "drop":
            return {name: value for name, value in message.items() if name != key}
        case "swap":
            return message | {key: message[draw(st.sampled_from(sorted(message)))]}
        case "deeper":
            return message | {key: _spoil(message[key], draw)}
        case "more":
            return message | {draw(st.text(max_size=8)): draw(json_values)}
        case _:
            return message | {key: draw(json_values)}


@st.composite
def frames(draw: st.DrawFn, path: str, is_binary: bool) -> bytes:
    """One frame: a valid message, one that was spoiled, or bytes that were."""
    message = msgspec.to_builtins(
        draw(st.one_of([messages(kind) for kind in DIRECTIONS[PATHS[path]]])),
        builtin_types=(bytes,) if is_binary else (),
    )
    for _ in range(draw(st.integers(0, 2))):
        message = _spoil(message, draw)
    payload = bytearray((msgspec.msgpack if is_binary else msgspec.json).encode(message))
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    opcode = BINARY if is_binary else TEXT
    whole = ws_frame(bytes(payload), opcode)
    if draw(st.integers(0, 19)) == 0:
        at = draw(st.integers(0, len(whole) - 1))
        whole = whole[:at] + bytes([draw(st.integers(0, 255))]) + whole[at + 1 :]
    return whole


@st.composite
def conversations(draw: st.DrawFn) -> tuple[str, bool, bool, list[bytes]]:
    """Where, in which format, whether it begins in order, and what is said."""
    path, is_binary, is_opened = draw(st.sampled_from(sorted(PATHS))), draw(st.booleans()), draw(st.integers(0, 3)) > 0
    return path, is_binary, is_opened, draw(st.lists(frames(path, is_binary), min_size=1, max_size=6))


class Loop:
    """One scene for all the examples: what one of them leaves behind, the next would meet."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self.scene: Scene = runner.run(self._stack.enter_async_context(a_scene()))

    def have(self, path: str, is_binary: bool, is_opened: bool, said: list[bytes]) -> None:
        """One peer says it all, and goes."""
        self._runner.run(self._have(path, is_binary, is_opened, said))

    def close(self) -> None:
        """End the scene; it looks for faults of ours."""
        self._runner.run(self._stack.aclose())

    async def _have(self, path: str, is_binary: bool, is_opened: bool, said: list[bytes]) -> None:
        app = self.scene.app
        raw = Raw(*await asyncio.open_connection("127.0.0.1", app.port))
        protocol = "dragoman.msgpack.v1" if is_binary else None
        raw.write(handshake(path, Sec_WebSocket_Protocol=protocol))
        assert " 101 " in await raw.answer()
        if is_opened:
            encode = (msgspec.msgpack if is_binary else msgspec.json).encode
            raw.write(ws_frame(encode(HELLO[path]), BINARY if is_binary else TEXT))
        raw.write(b"".join(said))
        raw.writer.write_eof()
        await raw.ends()
        await raw.close()
        await until(lambda: len(app.parts.open.sessions) == len(app.parts.open.nodes) == 1)
        await self.scene.bystanders.translates()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with asyncio.Runner() as runner:
        shared = Loop(runner)
        yield shared
        shared.close()


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(conversation=conversations())
def test_whatever_a_peer_says_the_others_are_translated(
    loop: Loop, conversation: tuple[str, bool, bool, list[bytes]]
) -> None:
    loop.have(*conversation)
