"""What does a scheduler look like to a node? A real socket that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from dragoman.node import Node
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, node_server_codec
from dragoman.protocol.fields import Error, Pipeline
from dragoman.protocol.node_messages import (
    JobAssign,
    NodeInbound,
    NodeOutbound,
    NodeRegister,
    NodeRegisterAck,
)

M = TypeVar("M", bound=NodeInbound)

WAIT_S: Final = 10


class Peer:
    """One connection of a node, seen from the scheduler."""

    def __init__(self, connection: ServerConnection, token: str | None) -> None:
        self.connection = connection
        self.token = token
        self.is_binary = connection.subprotocol == MSGPACK_SUBPROTOCOL
        self.seen: list[NodeInbound] = []
        self._codec = node_server_codec(is_binary=self.is_binary)

    async def receive(self) -> NodeInbound:
        async with asyncio.timeout(WAIT_S):
            frame = await self.connection.recv(decode=False)
        message = self._codec.decode(frame)
        self.seen.append(message)
        return message

    async def expect(self, kind: type[M], such: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of this type; what comes before it is in `seen`."""
        while True:
            message = await self.receive()
            if isinstance(message, kind) and such(message):
                return message

    async def send(self, message: NodeOutbound) -> None:
        frame = self._codec.encode(message)
        await self.connection.send(frame, text=not self.is_binary)

    async def send_raw(self, frame: bytes) -> None:
        await self.connection.send(frame, text=not self.is_binary)

    async def welcome(self, node_id: str | None = None) -> NodeRegister:
        """Let the node register."""
        register = await self.expect(NodeRegister)
        name = node_id or register.node_id or "node-named-by-scheduler"
        await self.send(NodeRegisterAck(node_id=name, message="registered", status="registering"))
        return register

    async def refuse(self, code: str) -> NodeRegister:
        register = await self.expect(NodeRegister)
        await self.send(Error(code=code, message="because of the test"))
        return register


class FakeScheduler:
    """Connections come out of `peer()` in their order."""

    def __init__(self) -> None:
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.url = ""

    async def peer(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self._peers.get()

    async def _accept(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        await self._peers.put(Peer(connection, connection.request.headers.get("Authorization")))
        await connection.wait_closed()


def _choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return offered[0] if MSGPACK_SUBPROTOCOL in offered else None


@asynccontextmanager
async def fake_scheduler(port: int = 0) -> AsyncIterator[FakeScheduler]:
    scheduler = FakeScheduler()
    async with serve(
        scheduler._accept,
        "127.0.0.1",
        port,
        select_subprotocol=_choose,
        ping_interval=None,
        close_timeout=0.5,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        scheduler.url = f"ws://127.0.0.1:{port}/ws/node"
        yield scheduler


@asynccontextmanager
async def running(node: Node, url: str) -> AsyncIterator[asyncio.Task[None]]:
    """The node at work; it is stopped at the end of the block."""
    task = asyncio.create_task(node.serve(url))
    try:
        yield task
    finally:
        node.stop()
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait([task])


@asynccontextmanager
async def registered(node: Node) -> AsyncIterator[Peer]:
    """The node, connected to a scheduler that has let it in."""
    async with fake_scheduler() as scheduler, running(node, scheduler.url) as task:
        peer = await scheduler.peer()
        await peer.welcome()
        yield peer
        await peer.connection.close()
        node.stop()
        await task


def assign(job_id: str = "job-1", **changes: Any) -> JobAssign:
    """A job that wants text translated from English to Portuguese, but for the changes."""
    fields: dict[str, Any] = {
        "job_id": job_id,
        "attempt_id": 1,
        "session_id": "session-1",
        "utterance_index": 0,
        "src_lang": "en",
        "tgt_lang": "pt",
        "pipeline": Pipeline(use_asr=False, use_nmt=True, use_tts=False),
        "audio": b"hello",
        "audio_format": "text",
        "sample_rate": 16_000,
        "trace_id": "trace-1",
    }
    return JobAssign(**(fields | changes))


FULL: Final = Pipeline(use_asr=True, use_nmt=True, use_tts=True)


def speech(job_id: str = "job-1", **changes: Any) -> JobAssign:
    """A job that wants a second of silence recognised, translated and spoken."""
    fields: dict[str, Any] = {"pipeline": FULL, "audio": bytes(32_000), "audio_format": "pcm16"}
    return assign(job_id, **(fields | changes))
