"""What would the frames of a job cost with nothing between them? The floor under every figure of a round trip.

The same WebSocket library, the same frames in the same order, and no scheduler: a session's frame goes to a node, the
node's two answers come back, the second goes to the session.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class _Floor:
    """Pairs each session with a node, and passes frames between them unread."""

    def __init__(self) -> None:
        self.nodes: list[_Peer] = []
        self.turn = itertools.count()

    def admit(self, request: WSUpgradeRequest) -> WSListener:
        """Take every connection."""
        return _Peer(self, is_node=request.path.startswith(b"/ws/node"))


class _Peer(WSListener):
    def __init__(self, floor: _Floor, *, is_node: bool) -> None:
        self.floor = floor
        self.is_node = is_node
        self.transport: WSTransport | None = None
        self.partner: _Peer | None = None
        self.frames = 0
        self.askers: list[_Peer] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self.is_node:
            self.floor.nodes.append(self)
        else:
            self.partner = self.floor.nodes[next(self.floor.turn) % len(self.floor.nodes)]

    def send(self, payload: bytes) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if self.partner is not None:
            self.partner.askers.append(self)
            self.partner.send(payload)
            return
        self.frames += 1
        if self.frames % 2 == 0:
            self.askers.pop(0).send(payload)


async def _serve() -> None:
    server = await ws_create_server(_Floor().admit, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    from dragoman.loop import run

    run(_serve())
