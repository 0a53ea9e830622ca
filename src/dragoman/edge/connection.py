"""What do all sockets of the data port have in common? Frames in, frames out, signs of life, one end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from dragoman.clock import Clock
from dragoman.telemetry.logs import get_logger

log = get_logger("edge")

CLOSE_GOING_AWAY: Final = 1001
CLOSE_POLICY: Final = 1008
CLOSE_TOO_BIG: Final = 1009
CLOSE_RESTART: Final = 1012

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY


class Connection(WSListener, ABC):
    """One socket. Subclasses say what its messages mean."""

    def __init__(self, clock: Clock, *, is_binary: bool, message_bytes_max: int) -> None:
        self._clock = clock
        self._frame_type = _BINARY if is_binary else _TEXT
        self._message_bytes_max = message_bytes_max
        self._transport: WSTransport | None = None
        self._fragments: list[bytes] = []
        self._fragments_bytes = 0
        self._is_text = False
        self.opened_ms = clock.now_ms()
        self.heard_ms = self.opened_ms
        """When the peer last gave a sign of life."""
        self.pinged_ms = 0
        self.is_gone = False

    @abstractmethod
    def receive(self, frame: bytes, *, is_text: bool) -> None:
        """A whole message came."""

    @abstractmethod
    def lost(self) -> None:
        """The socket is down."""

    @abstractmethod
    def end(self, code: int, reason: str) -> None:
        """End the connection from our side."""

    def ponged(self, payload: bytes) -> None:
        """The peer has read everything that was sent before the ping with this payload."""

    # What a mailbox uses.

    def send(self, frame: bytes) -> None:
        """Hand a frame to the socket."""
        if self._transport is not None:
            self._transport.send(self._frame_type, frame)

    def queued_bytes(self) -> int:
        """How much waits in memory for the peer to read."""
        transport = self._transport
        return 0 if transport is None else transport.underlying_transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """End the connection: a close frame, then the socket. A peer that does not read is not waited for."""
        transport = self._transport
        if transport is None or self.is_gone:
            return
        transport.send_close(WSCloseCode(code), reason.encode()[:120])
        transport.disconnect(graceful=self.queued_bytes() <= self._message_bytes_max)

    def ping(self, payload: bytes = b"") -> None:
        """Ask for a sign of life."""
        if self._transport is not None and not self.is_gone:
            self.pinged_ms = self._clock.now_ms()
            self._transport.send_ping(payload)

    # What the WebSocket library calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        self.heard_ms = self._clock.now_ms()
        if frame.fin and not self._fragments and kind in (_TEXT, _BINARY):
            self._receive(frame.get_payload_as_bytes(), is_text=kind == _TEXT)
        elif kind == WSMsgType.PONG:
            self.ponged(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            transport.disconnect()
        elif kind != WSMsgType.PING:
            self._collect(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.lost()

    def _collect(self, frame: WSFrame) -> None:
        """Put the parts of a fragmented message together (RFC 6455 section 5.4)."""
        is_first = frame.msg_type != WSMsgType.CONTINUATION
        if is_first == bool(self._fragments):
            self.close(int(WSCloseCode.PROTOCOL_ERROR.value), "fragments out of order")
            return
        if is_first:
            self._is_text = frame.msg_type == _TEXT
        part = frame.get_payload_as_bytes()
        self._fragments.append(part)
        self._fragments_bytes += len(part) + 1  # empty parts cost memory too
        if self._fragments_bytes > self._message_bytes_max:
            self.close(CLOSE_TOO_BIG, f"message of more than {self._message_bytes_max} bytes")
            self._fragments.clear()
            return
        if frame.fin:
            whole = b"".join(self._fragments)
            self._fragments.clear()
            self._fragments_bytes = 0
            self._receive(whole, is_text=self._is_text)

    def _receive(self, frame: bytes, *, is_text: bool) -> None:
        try:
            self.receive(frame, is_text=is_text)
        except Exception:  # one bad frame must not end the process
            log.exception("frame not handled")
