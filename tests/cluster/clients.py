"""Who asks? Clients that come back wherever they can, ask again what they may, and write everything down."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import msgspec

from dragoman.protocol.codec import session_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    MissingResult,
    ServerHeartbeat,
    SessionAsrPartial,
    SessionInitAck,
    SessionOutbound,
    TranslationResult,
    UiEvent,
)
from dragoman.websocket import ClientSocket, SocketClosedError, SocketRefusedError
from tests.cluster.fleet import Fleet, kept_busy, until
from tests.cluster.nodes import ScriptedNode
from tests.cluster.record import Record, Request
from tests.support.builders import a_client_heartbeat, a_session_init, a_text

_BEAT_S: Final = 0.5
_AGAIN_S: Final = 0.05
_GIVEN_UP_S: Final = 25.0


class Client:
    """One session, over as many connections as it takes. It counts the terminal messages it has had."""

    def __init__(self, record: Record, urls: Sequence[str], *, patience_s: float | None = None, **fields: Any) -> None:
        self.record = record
        self.urls = list(urls)
        """Where it connects, the next one after each loss; nowhere while there is none."""
        self.session_id = ""
        self.token = ""
        self.instance_ids: list[str] = []
        """Where it was let in."""
        self.requests: dict[int, Request] = {}
        self.events: list[UiEvent] = []
        self.partials: list[SessionAsrPartial] = []
        self.errors: list[Error] = []
        """Those that are the end of nothing."""
        self.terminals_received = 0
        self.reopened = 0
        """How often its session was not known any more."""
        self.is_connected = asyncio.Event()
        self.ready_s: list[float] = []
        """When it was let in."""
        self._indexes = itertools.count()
        self._patience_s = patience_s
        self._fields = fields
        self._given_up: set[int] = set()
        self._extra: dict[int, dict[str, Any]] = {}
        self._codec = session_client_codec(is_binary=False)
        self._socket: ClientSocket | None = None
        self._at = 0
        self._beaten = asyncio.Event()
        self._unheard_beats = 0
        self._beats_told = 0

    async def run(self) -> None:
        """Be there, until cancelled."""
        try:
            while True:
                await until(lambda: self.urls, within_s=60)
                with suppress(SocketClosedError, SocketRefusedError):
                    await self._connect(self.urls[self._at % len(self.urls)])
                self.is_connected.clear()
                if self._socket is not None:
                    self._socket.abort()
                self._at += 1
                await asyncio.sleep(_AGAIN_S)
        finally:
            if self._socket is not None:
                self._socket.abort()

    def drop(self) -> None:
        """Lose the connection."""
        assert self._socket is not None
        self._socket.abort()

    async def say(self, message: msgspec.Struct) -> None:
        """Send a message, if it is connected."""
        if self._socket is not None:
            with suppress(SocketClosedError):
                await self._socket.send(self._codec.encode(message))

    async def ask(self, text: str, *, request_id: str | None = None, **fields: Any) -> Request:
        """Say something to be translated."""
        index = next(self._indexes)
        request = self.record.ask(self.session_id, index, request_id or str(index), text)
        self.requests[index] = request
        self._extra[index] = fields
        request.is_open = True
        if self.is_connected.is_set():
            await self._utter(request)
        return request

    async def asks(self, text: str, within_s: float = 15, **fields: Any) -> Request:
        """Say something, and wait for the end of it."""
        request = await self.ask(text, **fields)
        await self.hears(request, within_s)
        return request

    async def hears(self, request: Request, within_s: float = 15) -> None:
        """Wait for the end of something."""
        await until(lambda: request.end is not None, within_s, lambda: f"no end of {request}")

    async def confirms(self) -> None:
        """Wait until the scheduler has heard what this client has had so far."""
        told = self._beats_told
        await until(lambda: self._beats_told >= told + 2)

    def give_up(self, request: Request) -> None:
        """Ask no more for something that was refused."""
        self._given_up.add(request.index)

    # --- how

    async def _connect(self, url: str) -> None:
        self._socket = socket = await ClientSocket.connect(f"{url}/ws/session", connect_timeout_s=2)
        self._beaten.clear()
        resume = {"resume_token": self.token, "terminals_received": self.terminals_received} if self.token else {}
        await self.say(a_session_init(**(self._fields | resume)))
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                await self._hear(self._codec.decode(await socket.receive()))
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        """Tell what it has had. The first time the answer says that all it was owed has come: then it asks again."""
        await self._beaten.wait()
        while True:
            self._unheard_beats += 1
            await self.say(a_client_heartbeat(session_id=self.session_id, terminals_received=self.terminals_received))
            await asyncio.sleep(_BEAT_S)
            if self._patience_s is not None and self._unheard_beats * _BEAT_S > self._patience_s:
                self.drop()

    async def _hear(self, message: SessionOutbound) -> None:
        match message:
            case SessionInitAck():
                self._let_in(message)
            case ServerHeartbeat():
                self._unheard_beats = 0
                self._beats_told += 1
                if not self.is_connected.is_set():
                    self.is_connected.set()
                    self.ready_s.append(self.record.now_s())
                    for request in list(self.requests.values()):
                        if request.is_open:
                            self.record.repeat(request)
                            await self._utter(request)
            case TranslationResult(utterance_index=index) | MissingResult(utterance_index=index):
                self._end(index, message)
            case Error():
                self._error(message)
            case UiEvent():
                self.events.append(message)
            case SessionAsrPartial():
                self.partials.append(message)
            case _:
                pass

    def _let_in(self, ack: SessionInitAck) -> None:
        if self.session_id and ack.session_id != self.session_id:
            self.reopened += 1
            self.terminals_received = 0
        self.session_id, self.token = ack.session_id, ack.resume_token
        self.instance_ids.append(ack.instance_id)
        self._unheard_beats = 0
        self._beaten.set()

    def _error(self, error: Error) -> None:
        index = (error.details or {}).get("utterance_index")
        if isinstance(index, int):
            self._end(index, error)
            return
        self.errors.append(error)
        if not self.is_connected.is_set():
            if error.code == "INVALID_SESSION":
                self.token = ""
            self.drop()

    def _end(self, index: int, terminal: TranslationResult | MissingResult | Error) -> None:
        self.terminals_received += 1
        request = self.requests.get(index)
        if request is None:
            self.record.wrongs.append(f"an end of nothing: {terminal}")
            return
        self.record.end(request, terminal)
        if request.end is None:
            asyncio.get_running_loop().call_later(0.1, self._again, request)

    def _again(self, request: Request) -> None:
        if not request.is_open and request.index not in self._given_up:
            request.is_open = True
            if self.is_connected.is_set():
                self._errand = asyncio.ensure_future(self._utter(request))

    async def _utter(self, request: Request) -> None:
        fields: dict[str, Any] = {"session_id": self.session_id, "utterance_index": request.index}
        if request.request_id != str(request.index):
            fields["request_id"] = request.request_id
        await self.say(a_text(request.text, **(fields | self._extra[request.index])))


@asynccontextmanager
async def clients_at(record: Record, *placed: Sequence[str], **options: Any) -> AsyncIterator[list[Client]]:
    """Clients, each with where it connects; let in when the block begins, gone when it ends."""
    clients = [Client(record, urls, **options) for urls in placed]
    async with kept_busy(*[client.run() for client in clients]):
        for client in clients:
            await until(client.is_connected.is_set, what=partial("a client is not let in: {0.errors}".format, client))
        yield clients


async def introduce(fleet: Fleet, nodes: Sequence[ScriptedNode], **fields: Any) -> None:
    """Wait until every instance gives work to every node."""
    record = Record()
    async with clients_at(record, *[[instance.url] for instance in fleet.instances], **fields) as clients:
        for client in clients:
            for node in nodes:
                await _introduce(client, node)


async def _introduce(client: Client, node: ScriptedNode) -> None:
    async with asyncio.timeout(15):
        for number in itertools.count():
            request = await client.asks(f"{node.name} {number}", preferred_node_id=node.name)
            if any(job.audio == request.text.encode() and job.session_id == client.session_id for job in node.given):
                return
            await asyncio.sleep(_AGAIN_S)


class Load:
    """Clients that ask one thing after the other, some at a time, until they are told to stop."""

    def __init__(self, clients: Sequence[Client], *, at_once: int = 2, pause_s: float = 0.02) -> None:
        self._clients = clients
        self._at_once = at_once
        self._pause_s = pause_s
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._ask(client, lane)) for client in self._clients for lane in range(self._at_once)
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_over = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def _ask(self, client: Client, lane: int) -> None:
        for number in itertools.count():
            if self._is_over:
                return
            request = await client.ask(f"{lane} {number}")
            try:
                await asyncio.wait_for(request.told.wait(), _GIVEN_UP_S)
            except TimeoutError:
                return  # the judge will find it
            await asyncio.sleep(self._pause_s)
