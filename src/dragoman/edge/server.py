"""Who may connect to the data port, and what happens to those who fall silent?"""

from __future__ import annotations

import asyncio
from typing import Final

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from dragoman.edge.connection import CLOSE_GOING_AWAY, CLOSE_POLICY, CLOSE_RESTART, Connection
from dragoman.edge.node_connection import NodeConnection
from dragoman.edge.parts import Parts
from dragoman.edge.session_connection import SessionConnection
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL
from dragoman.telemetry.logs import get_logger

log = get_logger("server")

SILENT_MS: Final = 180_000
"""A peer that gives no sign of life for this long is sent away (docs/protocol.md)."""
_PING_MS: Final = 20_000
_OPENING_MS: Final = 10_000
"""A connection must say who it is within this time."""
_HANDSHAKE_S: Final = 5
_READ_BUFFER_BYTES: Final = 4096
"""Per connection, to begin with: many thousands of them are idle most of the time."""


class Server:
    """The data port of one instance."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens on; useful when the settings say 0, any free one."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def open(self) -> None:
        """Begin to listen. Raises OSError when the address is taken."""
        settings = self._parts.server
        self._server = await ws_create_server(
            self._admit,
            settings.host,
            settings.port,
            websocket_handshake_timeout=_HANDSHAKE_S,
            max_frame_size=settings.max_message_bytes,
            read_buffer_init_size=_READ_BUFFER_BYTES,
            backlog=4096,
        )

    async def close(self) -> None:
        """Stop listening and end all connections; sessions can be resumed elsewhere."""
        if self._server is not None:
            self._server.close()
        for connection in (*self._parts.open.sessions, *self._parts.open.nodes):
            connection.end(CLOSE_RESTART, "the instance stops; connect again")
        # One turn of the loop for each socket to go down by itself.
        for _ in range(20):
            if not self._parts.open.sessions and not self._parts.open.nodes:
                return
            await asyncio.sleep(0.05)

    def look_after(self) -> None:
        """Ask who is silent for a sign of life, and end who gave none. To be called each second."""
        now_ms = self._parts.clock.now_ms()
        for session in tuple(self._parts.open.sessions):
            self._check_silence(session, now_ms, is_open=session.session is not None)
            session.check_receipt()
        for node in tuple(self._parts.open.nodes):
            self._check_silence(node, now_ms, is_open=node.node_id is not None)

    def _check_silence(self, connection: Connection, now_ms: int, *, is_open: bool) -> None:
        connection.note_signs(now_ms)
        if not is_open and now_ms - connection.opened_ms >= _OPENING_MS:
            connection.end(CLOSE_POLICY, "nothing was opened in time")
        elif now_ms - connection.heard_ms >= SILENT_MS:
            connection.end(CLOSE_GOING_AWAY, f"silent for {SILENT_MS // 1000} seconds")
        elif now_ms - max(connection.heard_ms, connection.pinged_ms) >= _PING_MS:
            connection.ping()

    # What the WebSocket library calls for each request.

    def _admit(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        path = request.path.partition(b"?")[0].decode("latin-1")
        match path:
            case "/health":
                return self._health()
            case "/ws/session" | "/ws/node":
                return self._upgrade(request, is_node=path == "/ws/node")
            case _:
                return _answer(404, "not here; wanted /ws/session, /ws/node or /health")

    def _health(self) -> WSUpgradeResponseWithListener:
        if self._parts.dispatcher.is_draining:
            return _answer(503, "draining")
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"OK\n"), None)

    def _upgrade(self, request: WSUpgradeRequest, *, is_node: bool) -> WSUpgradeResponseWithListener:
        if self._parts.dispatcher.is_draining:
            return _answer(503, "the instance stops; connect to another")
        if "upgrade" not in request.headers:
            return _answer(426, "a WebSocket is wanted here", {"Upgrade": "websocket"})
        limit = self._parts.server.max_nodes if is_node else self._parts.server.max_sessions
        if len(self._parts.open.nodes if is_node else self._parts.open.sessions) >= limit:
            log.warning("connection refused", kind="node" if is_node else "session", limit=limit)
            return _answer(503, f"{limit} are connected already")
        if "upgrade" in (option.lower() for option in _listed(request, "connection")):
            # The library wants it alone, and some browsers (Firefox) send "keep-alive, Upgrade".
            request.headers["Connection"] = "upgrade"
        is_binary = MSGPACK_SUBPROTOCOL in _listed(request, "sec-websocket-protocol")
        headers = {"Sec-WebSocket-Protocol": MSGPACK_SUBPROTOCOL} if is_binary else None
        response = WSUpgradeResponse.create_101_response(headers)
        return WSUpgradeResponseWithListener(response, self._connection(is_node=is_node, is_binary=is_binary))

    def _connection(self, *, is_node: bool, is_binary: bool) -> Connection:
        if is_node:
            return NodeConnection(self._parts, is_binary=is_binary)
        return SessionConnection(self._parts, self._parts.instance_id, is_binary=is_binary)


def _listed(request: WSUpgradeRequest, header: str) -> list[str]:
    """What a header lists; it may come more than once (RFC 9110 section 5.3)."""
    return [item.strip() for line in request.headers.getall(header, ()) for item in line.split(",")]


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(status, f"{text}\n".encode(), headers)
    return WSUpgradeResponseWithListener(response, None)
