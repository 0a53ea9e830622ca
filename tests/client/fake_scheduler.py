"""What does a scheduler look like to a client? A real socket that says what the test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from dragoman.client import Session, connect
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, session_server_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    ClientHeartbeat,
    ServerHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInbound,
    SessionInit,
    SessionInitAck,
    SessionOutbound,
    TranslationResult,
    UiEvent,
    UiEventKind,
    Utterance,
)

M = TypeVar("M", bound=SessionInbound)

WAIT_S: Final = 5


class Peer:
    """One connection of a client, seen from the scheduler. It answers heartbeats and goodbyes by itself."""

    def __init__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.connection = connection
        self.token = connection.request.headers.get("Authorization")
        self.is_binary = connection.subprotocol == MSGPACK_SUBPROTOCOL
        self.session_id = ""
        self.seen: list[SessionInbound] = []
        self.answers_heartbeats = True
        self._inbox: asyncio.Queue[SessionInbound] = asyncio.Queue()
        self._codec = session_server_codec(is_binary=self.is_binary)

    async def listen(self) -> None:
        try:
            async for frame in self.connection:
                message = self._codec.decode(frame if isinstance(frame, bytes) else frame.encode())
                self.seen.append(message)
                if isinstance(message, SessionClose):
                    await self.send(SessionCloseAck(session_id=self.session_id))
                if isinstance(message, ClientHeartbeat) and self.answers_heartbeats:
                    await self.send(ServerHeartbeat(session_id=self.session_id, timestamp=0))
                self._inbox.put_nowait(message)
        except ConnectionClosed:
            return

    async def expect(self, kind: type[M]) -> M:
        """The next message of this type; what comes before it is in `seen`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                message = await self._inbox.get()
                if isinstance(message, kind):
                    return message

    async def send(self, *messages: SessionOutbound) -> None:
        for message in messages:
            await self.send_raw(self._codec.encode(message))

    async def send_raw(self, frame: bytes) -> None:
        await self.connection.send(frame, text=not self.is_binary)

    async def welcome(self, session_id: str = "s-1", token: str = "t-1") -> SessionInit:
        """Open the session, or let it be resumed."""
        init = await self.expect(SessionInit)
        self.session_id = session_id
        await self.send(
            SessionInitAck(
                session_id=session_id,
                message="session created",
                trace_id="trace",
                resume_token=token,
                instance_id="i-1",
                negotiated_sample_rate=16_000,
            )
        )
        return init

    async def refuse(self, code: str) -> SessionInit:
        init = await self.expect(SessionInit)
        await self.send(Error(code=code, message="because of the test", details={"retryable": False}))
        return init

    async def cut(self) -> None:
        """The network fails: no close frame."""
        self.connection.transport.abort()
        await self.connection.wait_closed()


class FakeScheduler:
    """Connections come out of `peer()` in their order."""

    def __init__(self) -> None:
        self.url = ""
        self.refuse_with = 0
        """An HTTP status with which connections are refused, or 0."""
        self.refused = asyncio.Event()
        """Set when one was."""
        self.greet: Callable[[Peer], Coroutine[Any, Any, None]] | None = None
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def peer(self) -> Peer:
        async with asyncio.timeout(WAIT_S):
            return await self._peers.get()

    async def accept(self, connection: ServerConnection) -> None:
        peer = Peer(connection)
        if self.greet is None:
            self._peers.put_nowait(peer)
            await peer.listen()
            return
        async with asyncio.TaskGroup() as group:
            greeting = group.create_task(self.greet(peer))
            await peer.listen()
            greeting.cancel()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        if not self.refuse_with:
            return None
        self.refused.set()
        return connection.respond(self.refuse_with, "no\n")


def _choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return offered[0] if MSGPACK_SUBPROTOCOL in offered else None


@asynccontextmanager
async def fake_scheduler(port: int = 0) -> AsyncIterator[FakeScheduler]:
    scheduler = FakeScheduler()
    async with serve(
        scheduler.accept,
        "127.0.0.1",
        port,
        select_subprotocol=_choose,
        process_request=scheduler.check,
        ping_interval=None,
        close_timeout=0.2,
        max_size=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        scheduler.url = f"ws://127.0.0.1:{port}/ws/session"
        yield scheduler


@asynccontextmanager
async def opened(scheduler: FakeScheduler, **options: Any) -> AsyncIterator[tuple[Session, Peer]]:
    """A session that the scheduler has let in."""
    chosen: dict[str, Any] = {"src": "en", "tgt": "es", "timeout_s": WAIT_S} | options
    session = connect(scheduler.url, **chosen)
    opening = asyncio.create_task(session.__aenter__())
    peer = await scheduler.peer()
    await peer.welcome()
    await opening
    try:
        yield session, peer
    finally:
        await session.__aexit__(None, None, None)


def result(utterance: Utterance | int, text: str = "", **changes: Any) -> TranslationResult:
    """The result of an utterance: its text in brackets, but for the changes."""
    index = utterance if isinstance(utterance, int) else utterance.utterance_index
    said = text if isinstance(utterance, int) or text else utterance.audio.decode()
    fields: dict[str, Any] = {
        "session_id": "s-1",
        "utterance_index": index,
        "job_id": f"job-{index}",
        "text_asr": said,
        "text_translated": f"[{said}]",
        "tts_audio": b"",
        "tts_format": "wav",
        "trace_id": "trace",
    }
    return TranslationResult(**(fields | changes))


def failure(code: str, index: int, **details: Any) -> Error:
    """The error that ends an utterance."""
    return Error(code=code, message="because of the test", details={"utterance_index": index} | details)


def event(index: int, kind: UiEventKind = UiEventKind.DISPATCHED, job_id: str | None = None) -> UiEvent:
    """Word that a job is under way."""
    return UiEvent(
        trace_id="trace",
        session_id="s-1",
        job_id=f"job-{index}" if job_id is None else job_id,
        utterance_index=index,
        event=kind,
        status="ok",
        elapsed_ms=5,
    )


@contextmanager
def serving(greet: Callable[[Peer], Coroutine[Any, Any, None]]) -> Iterator[str]:
    """The URL of a scheduler in a thread of its own, for programs that have their own loop."""
    ready, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event, str]]()

    async def main() -> None:
        async with fake_scheduler() as scheduler:
            scheduler.greet = greet
            stop = asyncio.Event()
            loops.append((asyncio.get_running_loop(), stop, scheduler.url))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(WAIT_S)
    loop, stop, url = loops[0]
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_S)
