"""Who comes over a real socket? An instance on a loopback port, sessions and nodes that behave, and raw bytes."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import Any, Self, TypeVar

import msgspec
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from dragoman.app import App, running_app
from dragoman.config.settings import Settings
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, node_client_codec, session_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import JobAssign, NodeRegisterAck
from dragoman.protocol.session_messages import ServerHeartbeat, SessionInitAck, TranslationResult, UiEvent
from tests.support.builders import (
    a_client_heartbeat,
    a_job_result,
    a_node_heartbeat,
    a_node_register,
    a_session_init,
    a_text,
    language_declaration,
)

M = TypeVar("M", bound=msgspec.Struct)

WITHIN_S = 10


@asynccontextmanager
async def an_instance(**overrides: Any) -> AsyncIterator[App]:
    """One instance on any free port, with settings `section__key=value` over the defaults.

    When it stops all its connections are down: what is left of one would be a leak.
    """
    values: dict[str, Any] = {"server": {"port": 0}}
    for path, value in overrides.items():
        *sections, key = path.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    async with running_app(Settings.model_validate(values), rng=Random(1)) as app:
        yield app
    assert not app.parts.open.sessions
    assert not app.parts.open.nodes


async def until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


class Peer:
    """One WebSocket, in either format, and what came over it."""

    path = "/ws/session"

    def __init__(self, socket: ClientConnection, *, is_binary: bool) -> None:
        self.socket = socket
        self.is_binary = is_binary
        self._decode: Callable[[bytes], Any] = self._codec(is_binary).decode
        self._encode = (msgspec.msgpack if is_binary else msgspec.json).encode

    @classmethod
    async def connect(cls, app: App, *, is_binary: bool = False, **options: Any) -> Self:
        """Open the socket and say nothing."""
        socket = await connect(
            f"ws://127.0.0.1:{app.port}{cls.path}",
            subprotocols=[Subprotocol(MSGPACK_SUBPROTOCOL)] if is_binary else None,
            compression=None,
            max_size=None,
            ping_interval=None,
            **options,
        )
        return cls(socket, is_binary=is_binary)

    @classmethod
    def _codec(cls, is_binary: bool) -> Any:
        return session_client_codec(is_binary=is_binary)

    def frame(self, message: Any) -> bytes | str:
        """A message, as a frame of this peer's format: binary or text."""
        frame: bytes = self._encode(message)
        return frame if self.is_binary else frame.decode()

    async def say(self, message: Any) -> None:
        """Send a message, or anything that is none."""
        await self.socket.send(self.frame(message))

    async def say_raw(self, frame: Any, **options: Any) -> None:
        """Send a frame as it is: str is text, bytes are binary, a list is sent in fragments."""
        await self.socket.send(frame, **options)

    async def hears(self, kind: type[M], within_s: float = WITHIN_S) -> M:
        """The next message of a type; what comes before is passed over."""
        async with asyncio.timeout(within_s):
            while True:
                message = await self.next()
                if isinstance(message, kind):
                    return message

    async def next(self) -> Any:
        """The next message."""
        frame = await self.socket.recv()
        assert isinstance(frame, bytes) is self.is_binary
        return self._decode(frame if isinstance(frame, bytes) else frame.encode())

    async def is_closed_with(self, within_s: float = WITHIN_S) -> tuple[int, list[Any]]:
        """Wait for the end: the close code, and what was said before."""
        heard: list[Any] = []
        async with asyncio.timeout(within_s):
            while True:
                try:
                    heard.append(await self.next())
                except ConnectionClosed as closed:
                    return (1006 if closed.rcvd is None else closed.rcvd.code), heard

    async def is_sent_away(self, code: int = 1008) -> Error:
        """Wait for an error and then the end with that code."""
        closed, heard = await self.is_closed_with()
        assert closed == code
        errors = [message for message in heard if isinstance(message, Error)]
        assert errors, "no error was told before the end"
        return errors[-1]

    def cut(self) -> None:
        """Lose the network."""
        self.socket.transport.abort()

    async def close(self) -> None:
        """Say goodbye."""
        await self.socket.close()


class Session(Peer):
    """A client."""

    session_id = ""
    resume_token = ""

    def __init__(self, socket: ClientConnection, *, is_binary: bool) -> None:
        super().__init__(socket, is_binary=is_binary)
        self.indexes = itertools.count()

    async def open(self, **fields: Any) -> SessionInitAck:
        """Open the session."""
        await self.say(a_session_init(**fields))
        ack = await self.hears(SessionInitAck)
        self.session_id, self.resume_token = ack.session_id, ack.resume_token
        return ack

    async def hears_nothing_else(self) -> None:
        """Whatever was said so far has been answered, and all the answers were read."""
        await self.say(a_client_heartbeat(session_id=self.session_id))
        told = await self.next()
        assert isinstance(told, ServerHeartbeat), told

    async def speak(self, text: str, **fields: Any) -> int:
        """Type something to be translated; answers its index."""
        index = next(self.indexes)
        await self.say(a_text(text, **{"session_id": self.session_id, "utterance_index": index} | fields))
        return index


class Node(Peer):
    """A node."""

    path = "/ws/node"
    node_id = ""

    @classmethod
    def _codec(cls, is_binary: bool) -> Any:
        return node_client_codec(is_binary=is_binary)

    async def register(self, node_id: str, tgt: str = "pt", **fields: Any) -> None:
        """Become a node that translates from English into one language, and is ready."""
        languages = language_declaration(supported_language_pairs=[("en", tgt)])
        await self.say(a_node_register(node_id, language_capabilities=languages, max_concurrent_jobs=4, **fields))
        self.node_id = (await self.hears(NodeRegisterAck)).node_id
        await self.beat()

    async def beat(self, **fields: Any) -> None:
        """Tell that it is well and runs nothing."""
        await self.say(a_node_heartbeat(self.node_id, **fields))

    async def finish(self, job: JobAssign, text: str, **fields: Any) -> None:
        """Answer a job."""
        about = {"job_id": job.job_id, "attempt_id": job.attempt_id, "node_id": self.node_id}
        about |= {"session_id": job.session_id, "utterance_index": job.utterance_index, "trace_id": job.trace_id}
        await self.say(a_job_result(**about | {"text_asr": "", "text_translated": text} | fields))


class Pair:
    """A session, and the one node that translates for it."""

    def __init__(self, session: Session, node: Node, tgt: str) -> None:
        self.session = session
        self.node = node
        self._tgt = tgt
        self._count = 0

    async def translates(self) -> None:
        """One utterance goes from end to end, and nothing else comes in its place."""
        self._count += 1
        text = f"{self._tgt} {self._count}"
        index = await self.session.speak(text, tgt_lang=self._tgt)
        job = await self.node.hears(JobAssign)
        assert job.audio == text.encode()
        await self.node.finish(job, text.upper())
        while isinstance(told := await self._told(), UiEvent):
            pass
        assert isinstance(told, TranslationResult), told
        assert (told.utterance_index, told.text_translated) == (index, text.upper())

    async def _told(self) -> Any:
        async with asyncio.timeout(WITHIN_S):
            return await self.session.next()


class Scene:
    """An instance with a pair of bystanders, and room for who misbehaves."""

    def __init__(self, app: App, stack: AsyncExitStack) -> None:
        self.app = app
        self._stack = stack
        self._numbers = itertools.count()
        self.bystanders: Pair

    async def a_pair(self, tgt: str, *, is_binary: bool = False) -> Pair:
        """A session and a node that is its alone."""
        node = await self.a_node(is_binary=is_binary)
        await node.register(f"node {tgt}", tgt)
        session = await self.a_session(is_binary=is_binary)
        await session.open(tgt_lang=tgt)
        return Pair(session, node, tgt)

    async def a_session(self, **options: Any) -> Session:
        """A client's socket, nothing said yet."""
        session: Session = await self._kept(await Session.connect(self.app, **options))
        return session

    async def a_node(self, **options: Any) -> Node:
        """A node's socket, nothing said yet."""
        node: Node = await self._kept(await Node.connect(self.app, **options))
        return node

    async def raw(self, data: bytes = b"") -> Raw:
        """A TCP connection, and what is written to it first."""
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.app.port))
        self._stack.push_async_callback(raw.close)
        raw.write(data)
        return raw

    async def upgraded(self, path: str = "/ws/session") -> Raw:
        """A TCP connection that has become a WebSocket."""
        raw = await self.raw(handshake(path))
        assert (await raw.answer()).startswith("HTTP/1.1 101 ")
        return raw

    async def _kept(self, peer: Any) -> Any:
        self._stack.push_async_callback(peer.close)
        return peer


@asynccontextmanager
async def a_scene(*, is_binary: bool = False, **overrides: Any) -> AsyncIterator[Scene]:
    """An instance, and two bystanders who must not notice what happens to others."""
    with capture_logs() as logs:
        async with an_instance(**overrides) as app:
            async with AsyncExitStack() as stack:
                scene = Scene(app, stack)
                scene.bystanders = await scene.a_pair("de", is_binary=is_binary)
                yield scene
                await scene.bystanders.translates()
            await until(lambda: not app.parts.open.sessions and not app.parts.open.nodes)
    assert [log for log in logs if log["log_level"] == "error"] == [], "nothing that a peer says is a fault of ours"


# --- raw bytes


def handshake(path: str = "/ws/session", **headers: str | None) -> bytes:
    """The request that opens a WebSocket; a header given as None is left out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def ws_frame(
    payload: bytes, opcode: int = TEXT, *, fin: bool = True, masked: bool = True, reserved: int = 0, length: int = -1
) -> bytes:
    """One WebSocket frame (RFC 6455 section 5.2), as broken as is wanted."""
    size = len(payload) if length < 0 else length
    flag = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += bytes([flag | 126]) + struct.pack("!H", size)
    else:
        head += bytes([flag | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked_payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    return head + mask + masked_payload


class Raw:
    """A TCP connection without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def answer(self, within_s: float = WITHIN_S) -> str:
        """The head of the HTTP answer; empty when the connection ends without one."""
        async with asyncio.timeout(within_s):
            try:
                return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            except (asyncio.IncompleteReadError, ConnectionError):
                return ""

    async def ends(self, within_s: float = WITHIN_S) -> bytes:
        """Wait until the other side ends the connection; what came before."""
        came = b""
        async with asyncio.timeout(within_s):
            try:
                while part := await self.reader.read(65536):
                    came += part
            except ConnectionError:
                pass
        return came

    async def frames(self, within_s: float = WITHIN_S) -> list[tuple[int, bytes]]:
        """Wait until the other side ends the connection; the frames that came before: opcode and payload."""
        data, found = await self.ends(within_s), []
        while data:
            size, at = data[1] & 0x7F, 2
            if size == 126:
                size, at = int.from_bytes(data[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(data[2:10], "big"), 10
            found.append((data[0] & 0xF, data[at : at + size]))
            data = data[at + size :]
        return found

    async def close_code(self, within_s: float = WITHIN_S) -> int:
        """Wait for the end; the code of its close frame, 1006 without one."""
        codes = [payload[:2] for opcode, payload in await self.frames(within_s) if opcode == CLOSE]
        return int.from_bytes(codes[-1], "big") if codes else 1006

    async def close(self) -> None:
        """Go."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()
