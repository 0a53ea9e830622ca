"""What do all sockets of the data port have in common? Frames in, frames out, signs of life, one end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from dragoman.clock import Clock
from dragoman.config.settings import ServerSettings
from dragoman.edge.outbound import Outbound
from dragoman.telemetry.logs import get_logger

log = get_logger("edge")

CLOSE_DONE: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_POLICY: Final = 1008
CLOSE_TOO_BIG: Final = 1009
CLOSE_RESTART: Final = 1012

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY


_LINGER_S: Final = 5
"""How long a peer that is sent away has to read what is on its way, and the close frame behind it."""


class Connection(WSListener, ABC):
    """One socket. Subclasses say what its messages mean."""

    def __init__(self, clock: Clock, outbound: Outbound, *, is_binary: bool, limits: ServerSettings) -> None:
        self._frame_type = _BINARY if is_binary else _TEXT
        self._message_bytes_max = limits.max_message_bytes
        self._queue_bytes_max = limits.send_queue_bytes
        self._clock = clock
        self._transport: WSTransport | None = None
        self._outbound = outbound
        self._frames: list[bytes] = []
        self._partial: bytearray | None = None
        """What has come of a message in fragments."""
        self._is_text = False
        self._has_spoken = False
        self.opened_ms = self.heard_ms = clock.now_ms()
        self.pinged_ms = 0
        self.is_gone = False

    @abstractmethod
    def opened(self) -> None:
        """The socket is up. It may be refused after the connection was made: only now there is something to close."""

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

    @abstractmethod
    def overflow(self) -> None:
        """More waits for the peer to read than may."""

    def note_signs(self, now_ms: int) -> None:
        """Note when the peer was last heard: as of now, if it has said anything since the last time."""
        if self._has_spoken:
            self._has_spoken = False
            self.heard_ms = now_ms

    # What a mailbox uses.

    def send(self, frame: bytes) -> None:
        """Hand a frame to the socket; it leaves at the end of this turn of the loop."""
        if not self._frames:
            self._outbound.add(self)
        self._frames.append(frame)

    def write_frames(self) -> None:
        """Write what was sent in this turn."""
        frames, self._frames = self._frames, []
        transport = self._transport
        if transport is None or self.is_gone:
            return
        for frame in frames:
            transport.send(self._frame_type, frame)

    def close(self, code: int, reason: str) -> None:
        """End the connection: what is on its way, a close frame, the socket. A slow reader gets a moment."""
        transport = self._transport
        if transport is None or self.is_gone:
            return
        self.write_frames()
        transport.send_close(WSCloseCode(code), reason.encode()[:120])
        transport.disconnect()
        asyncio.get_running_loop().call_later(_LINGER_S, transport.disconnect, False)  # noqa: FBT003  # not graceful

    def ping(self, payload: bytes = b"") -> None:
        """Ask for a sign of life. Its answer is a receipt for all that was sent before, so that leaves first."""
        if self._transport is not None and not self.is_gone:
            self.write_frames()
            self.pinged_ms = self._clock.now_ms()
            self._transport.send_ping(payload)

    # What the WebSocket library calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=self._queue_bytes_max)
        self.opened()

    def pause_writing(self) -> None:
        self.overflow()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        self._has_spoken = True
        if transport.is_close_frame_sent and kind != WSMsgType.CLOSE:
            return  # it was sent away, and may not have read that yet
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(CLOSE_PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        elif frame.fin and self._partial is None and kind in (_TEXT, _BINARY):
            try:
                self.receive(frame.get_payload_as_bytes(), is_text=kind == _TEXT)
            except Exception:  # one bad frame must not end the process
                log.exception("frame not handled")
        elif kind == WSMsgType.PONG:
            self.ponged(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self.close(CLOSE_DONE, "")
        elif kind != WSMsgType.PING:
            self._collect(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.lost()

    def _collect(self, frame: WSFrame) -> None:
        """Put the parts of a fragmented message together (RFC 6455 section 5.4)."""
        is_first = frame.msg_type != WSMsgType.CONTINUATION
        partial = self._partial
        if is_first is (partial is not None):
            self.close(CLOSE_PROTOCOL_ERROR, "fragments out of order")
            return
        if partial is None:
            self._is_text = frame.msg_type == _TEXT
            partial = self._partial = bytearray()
        partial += frame.get_payload_as_memoryview()
        if len(partial) > self._message_bytes_max:
            self.close(CLOSE_TOO_BIG, f"message of more than {self._message_bytes_max} bytes")
        elif frame.fin:
            self._partial = None
            self._receive(bytes(partial), is_text=self._is_text)

    def _receive(self, frame: bytes, *, is_text: bool) -> None:
        try:
            self.receive(frame, is_text=is_text)
        except Exception:  # one bad frame must not end the process
            log.exception("frame not handled")
