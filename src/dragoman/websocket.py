"""How does a program of ours open a WebSocket and talk over it? The client side, shared by both SDKs."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Final, Self

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from picows.common import WSInvalidStatusError

_FRAMES_WAITING_MAX: Final = 256
"""Frames read but not yet asked for; beyond it the socket is not read, and TCP holds the sender back."""

_PING_S: Final = 15
"""A server that says nothing for this long is asked for a sign of life, and given up after as long again."""


class SocketClosedError(ConnectionError):
    """The other side, or the network, ended the connection."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"connection closed with code {code}" + (f": {reason}" if reason else ""))


class SocketRefusedError(ConnectionError):
    """No WebSocket came about: nobody listens, or the server said no, with an HTTP `status`."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(text)


class ClientSocket(WSListener):
    """One open WebSocket: `receive` whole messages one by one, `send` them, `close`."""

    def __init__(self, *, is_binary: bool, message_bytes_max: int) -> None:
        self._type = WSMsgType.BINARY if is_binary else WSMsgType.TEXT
        self._message_bytes_max = message_bytes_max
        self._transport: WSTransport | None = None
        self._frames: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._arrival: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed: SocketClosedError | None = None
        self._is_paused = False

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        subprotocol: str | None = None,
        token: str | None = None,
        connect_timeout_s: float = 10,
        message_bytes_max: int = 16 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Open a WebSocket to `url` (ws: or wss:); with a subprotocol the frames are binary.

        Raises SocketRefusedError, which says what was tried and what came of it.
        """
        headers = {}
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with asyncio.timeout(connect_timeout_s):
                _, listener = await ws_connect(
                    lambda: cls(is_binary=subprotocol is not None, message_bytes_max=message_bytes_max),
                    url,
                    ssl_context=tls,
                    extra_headers=headers,
                    max_frame_size=message_bytes_max,
                    websocket_handshake_timeout=connect_timeout_s,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=_PING_S,
                    auto_ping_reply_timeout=_PING_S,
                    max_redirects=0,
                )
        except TimeoutError as error:
            raise SocketRefusedError(f"{url}: no answer within {connect_timeout_s:g} s") from error
        except WSInvalidStatusError as error:
            status = 0 if error.response is None else int(error.response.status)
            raise SocketRefusedError(f"{url}: {error}", status=status) from error
        except (WSError, WSInvalidURL, OSError, ValueError) as error:
            raise SocketRefusedError(f"{url}: {error}") from error
        if not isinstance(listener, cls):
            # The library gives none when the connection ends before the server has answered.
            raise SocketRefusedError(f"{url}: the connection ended before the server answered")
        return listener

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self._closed is not None

    async def receive(self) -> bytes:
        """The next message. Raises SocketClosedError once all that came before the end has been read."""
        while not self._frames:
            if self._closed is not None:
                raise self._closed
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        frame = self._frames.popleft()
        if self._is_paused and self._transport is not None and len(self._frames) < _FRAMES_WAITING_MAX // 2:
            self._is_paused = False
            self._transport.underlying_transport.resume_reading()
        return frame

    async def send(self, frame: bytes) -> None:
        """Send one message; waits while the other side reads too slowly. Raises SocketClosedError."""
        await self._writable.wait()
        if self._closed is not None or self._transport is None:
            raise self._closed or SocketClosedError(1006, "not connected")
        self._transport.send(self._type, frame)

    async def close(self, code: int = 1000, reason: str = "", *, wait_s: float = 2) -> None:
        """Say goodbye and wait until the connection is down, at most `wait_s`."""
        transport = self._transport
        if transport is None or self._closed is not None:
            return
        transport.send_close(WSCloseCode(code), reason.encode()[:120])
        try:
            async with asyncio.timeout(wait_s):
                await transport.wait_disconnected()
        except TimeoutError:
            transport.disconnect(graceful=False)

    def abort(self) -> None:
        """Drop the connection without a word, as a network that fails does."""
        if self._transport is not None and self._closed is None:
            self._closed = SocketClosedError(1006, "dropped")
            self._transport.disconnect(graceful=False)
            self._wake()

    # What the WebSocket library calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            code = int(frame.get_close_code().value)
            self._closed = SocketClosedError(code, frame.get_close_reason() or "")
            transport.disconnect()
            self._wake()
            return
        if frame.msg_type in (WSMsgType.PING, WSMsgType.PONG):
            return
        self._parts.append(frame.get_payload_as_bytes())
        if sum(map(len, self._parts)) > self._message_bytes_max:
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect()
            return
        if not frame.fin:
            return
        self._frames.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts.clear()
        if len(self._frames) >= _FRAMES_WAITING_MAX and not self._is_paused:
            self._is_paused = True
            transport.underlying_transport.pause_reading()
        self._wake()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._closed is None:
            self._closed = SocketClosedError(1006, "the connection was lost")
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
