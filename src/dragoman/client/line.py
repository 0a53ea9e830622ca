"""How does a session stay connected, whatever happens to its sockets?"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from dragoman.client.connection import SESSION_GONE, Attempt, Denied, Gone, Opened, Unreachable, attempt
from dragoman.client.errors import DragomanError, GaveUpError, SessionEndedError, SessionLostError, from_wire
from dragoman.client.options import Options
from dragoman.client.patience import Backoff, Pace
from dragoman.client.traffic import Beat, Outgoing, Traffic
from dragoman.protocol.codec import FormatError, UnknownTypeError, session_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    Backpressure,
    ClientHeartbeat,
    MissingResult,
    ServerHeartbeat,
    SessionAsrPartial,
    SessionClose,
    SessionCloseAck,
    SessionInitAck,
    SessionOutbound,
    Terminal,
    TranslationResult,
    UiEvent,
    Utterance,
)
from dragoman.websocket import ClientSocket, SocketClosedError

_log = logging.getLogger("dragoman.client")
_log.addHandler(logging.NullHandler())  # silent, unless the program wants to know

_RECONNECT_FIRST_S: Final = 0.2
_RECONNECT_LAST_S: Final = 10.0
_STEADY_S: Final = 5.0
"""A connection that held for so long was a good one: the next loss is mended at once."""
_CLOSE_WAIT_S: Final = 2.0
_TOO_BIG: Final = 1009


class Line:
    """One session over as many sockets as it takes. It carries the traffic, and tells it what happens."""

    def __init__(self, options: Options, traffic: Traffic, wake: asyncio.Event) -> None:
        self.traffic = traffic
        self.session_id = ""
        self.instance_id = ""
        self.sample_rate = 0
        """Samples per second of a stream of audio, as the scheduler wants it."""
        self.ended: DragomanError | None = None
        """Why nothing can be sent any more."""
        self._options = options
        self._codec = session_client_codec(is_binary=not options.json)
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._socket: ClientSocket | None = None
        self._resume_token: str | None = None
        self._terminals_received = 0
        self._pace = Pace()
        self._backoff = Backoff(first_s=_RECONNECT_FIRST_S, last_s=_RECONNECT_LAST_S)
        self._connected_at = 0.0
        self._gone: DragomanError | None = None
        """What the scheduler said when it did not know the session in the middle of it."""
        self._is_closing = False
        self._goodbye = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and open the session, and keep it until `close`. Raises DragomanError if that fails."""
        match await self._attempt():
            case Opened() as opened:
                self._adopt(opened)
            case Unreachable(error) | Denied(error) | Gone(error):
                raise error
        self._task = asyncio.create_task(self._run(), name="dragoman session")

    async def close(self) -> None:
        """End the session for good; the scheduler is told, and given a moment to say goodbye."""
        self._is_closing = True
        self._end(SessionEndedError("the session is closed"))
        if self._task is None:
            return
        try:
            if self._socket is not None and not self._socket.is_closed:
                await self._say_goodbye(self._socket)
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _say_goodbye(self, socket: ClientSocket) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self._send(socket, SessionClose(session_id=self.session_id, reason="done"))
                await self._goodbye.wait()
                await socket.close()
        except (TimeoutError, SocketClosedError):
            _log.debug("session %s closed without an answer", self.session_id)

    # --- connections come and go

    async def _run(self) -> None:
        try:
            while True:
                lost = await self._talk()
                if self._is_closing:
                    return
                _log.info("connection lost, session %s: %s", self.session_id, lost)
                await self._come_back(lost)
        except DragomanError as error:
            _log.warning("session %s ends: %s", self.session_id, error)
            self._end(error)
        finally:
            # Also of a fault of ours, nobody may wait for ever.
            self._end(SessionEndedError("the session has ended"))
            self._goodbye.set()
            if self._socket is not None:
                self._socket.abort()

    def _end(self, error: DragomanError) -> None:
        if self.ended is None:
            self.ended = error
            self.traffic.fail(error)

    async def _come_back(self, lost: SocketClosedError) -> None:
        """Connect again and resume, or raise what makes that hopeless."""
        if lost.code == _TOO_BIG:
            self.traffic.was_too_long()
        if self._gone is not None:
            self._forget_session(self._gone)
        if self._loop.time() - self._connected_at >= _STEADY_S:
            self._backoff.reset()
        give_up_at = self._loop.time() + self._options.reconnect_s
        while True:
            await asyncio.sleep(min(self._backoff.next_s(), max(0.0, give_up_at - self._loop.time())))
            tried = await self._attempt()
            if isinstance(tried, Gone):
                self._forget_session(tried.error)
                tried = await self._attempt()
            match tried:
                case Opened():
                    self._adopt(tried)
                    return
                case Denied(error) | Gone(error):
                    raise error
                case Unreachable(error):
                    if self._loop.time() >= give_up_at:
                        text = f"the connection did not come back within {self._options.reconnect_s:g} s: {error}"
                        raise GaveUpError(text) from error

    async def _attempt(self) -> Attempt:
        return await attempt(
            self._options,
            self._codec,
            resume_token=self._resume_token,
            terminals_received=self._terminals_received,
        )

    def _forget_session(self, why: DragomanError) -> None:
        if not self._options.reopen:
            raise SessionLostError(f"the scheduler no longer knows session {self.session_id}: {why}") from why
        self._resume_token = self._gone = None

    def _adopt(self, opened: Opened) -> None:
        """Go on over a new socket, in the same session or in a new one."""
        ack, before = opened.ack, self.session_id
        self._socket = opened.socket
        self._resume_token = ack.resume_token
        self._connected_at = self._loop.time()
        self.session_id, self.instance_id = ack.session_id, ack.instance_id
        self.sample_rate = ack.negotiated_sample_rate or 0
        if ack.session_id == before:
            _log.info("session %s resumed", before)
            self.traffic.resumed()
            return
        self._terminals_received = 0
        self._pace = Pace()
        if before:
            _log.warning("session %s is gone, %s takes its place", before, ack.session_id)
            self.traffic.restarted()

    # --- on one connection

    async def _talk(self) -> SocketClosedError:
        """Send and receive, until the connection breaks."""
        socket = self._socket
        assert socket is not None
        lost = SocketClosedError(1006, "the connection was lost")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(socket), name="dragoman writer")
                group.create_task(self._beat(socket), name="dragoman heartbeats")
                group.create_task(self._read(socket), name="dragoman reader")
        except* SocketClosedError as closed:
            first = closed.exceptions[0]
            lost = first if isinstance(first, SocketClosedError) else lost
        return lost

    async def _write(self, socket: ClientSocket) -> None:
        while True:
            self._wake.clear()
            wait_s = self._pace.wait_s(self._loop.time())
            message = self.traffic.next_message(self.session_id, is_held=wait_s > 0)
            if message is None:
                await self._wait(wait_s)
                continue
            if isinstance(message, Utterance):
                self._pace.sent(self._loop.time())
            await self._send(socket, message)

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s if wait_s > 0 else None):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _beat(self, socket: ClientSocket) -> None:
        while True:
            await asyncio.sleep(self._options.heartbeat_s)
            await self._send(socket, Beat.BEAT)

    async def _send(self, socket: ClientSocket, message: Outgoing | SessionClose) -> None:
        if message is Beat.BEAT:
            self.traffic.beat_sent()
            await socket.send(self._codec.encode(self._heartbeat()))
        else:
            await socket.send(self._codec.encode(message))

    def _heartbeat(self) -> ClientHeartbeat:
        return ClientHeartbeat(
            session_id=self.session_id,
            timestamp=int(time.time() * 1000),
            terminals_received=self._terminals_received,
        )

    async def _read(self, socket: ClientSocket) -> None:
        while True:
            frame = await socket.receive()
            try:
                message = self._codec.decode(frame)
            except UnknownTypeError as error:
                _log.debug("passed over: %s", error)
            except FormatError as error:
                self._bad(frame, error)
            else:
                self._take(message, socket)

    def _bad(self, frame: bytes, error: FormatError) -> None:
        """A message that makes no sense may have been the end of an utterance: whoever waits for it is told."""
        _log.warning("a message of the scheduler makes no sense: %s", error)
        loose = self._codec.salvage(frame)
        index = loose.get("utterance_index")
        if loose.get("type") in ("translation_result", "missing_result") and isinstance(index, int):
            self._terminals_received += 1
            self.traffic.spoil(index, str(error))

    def _take(self, message: SessionOutbound, socket: ClientSocket) -> None:
        match message:
            case TranslationResult(utterance_index=index) | MissingResult(utterance_index=index):
                self._terminal(index, message)
            case Error():
                self._error(message, socket)
            case UiEvent() | SessionAsrPartial():
                self.traffic.note(message)
            case Backpressure():
                self._pace.obey(message, self._loop.time())
            case ServerHeartbeat():
                self.traffic.beat_answered()
            case SessionCloseAck():
                self._goodbye.set()
            case SessionInitAck():
                return

    def _terminal(self, index: int, terminal: Terminal) -> None:
        self._terminals_received += 1
        self.traffic.end(index, terminal)

    def _error(self, error: Error, socket: ClientSocket) -> None:
        index = (error.details or {}).get("utterance_index")
        if error.code in SESSION_GONE and not self._is_closing:
            # The scheduler does not know the session that it let us open: another one, on another connection.
            self._gone = from_wire(error)
            socket.abort()
        elif isinstance(index, int):
            self._terminal(index, error)
        else:
            _log.info("the scheduler said: %s: %s", error.code, error.message)
