"""What would the frames of a job cost with nothing between them? The floor under every figure of a round trip.

The same WebSocket library, frames of the same sizes in the same order, and no scheduler: a session's frame goes to a
node, the node's two answers come back, the second goes to the session.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import deque

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from dragoman.bench.load import PAYLOAD
from dragoman.loop import run

UTTERANCE = b'{"type":"utterance","session_id":"s-0123456789abcdef","audio":"%s"}' % (b"A" * (len(PAYLOAD) * 4 // 3))
ACK = b'{"type":"job_ack","job_id":"job-%s","attempt_id":1}' % (b"0" * 150)
RESULT = b'{"type":"job_result","job_id":"job-%s","text_translated":"%s"}' % (b"0" * 150, PAYLOAD)


class _Floor:
    """Pairs each session with a node, and passes frames between them unread."""

    def __init__(self) -> None:
        self.nodes: list[_Passing] = []
        self.turn = itertools.count()

    def admit(self, request: WSUpgradeRequest) -> WSListener:
        """Take every connection."""
        return _Passing(self, is_node=request.path.startswith(b"/ws/node"))


class _Passing(WSListener):
    def __init__(self, floor: _Floor, *, is_node: bool) -> None:
        self.floor = floor
        self.is_node = is_node
        self.transport: WSTransport | None = None
        self.partner: _Passing | None = None
        self.askers: deque[_Passing] = deque()
        self.answers = 0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self.is_node:
            self.floor.nodes.append(self)
        else:
            self.partner = self.floor.nodes[next(self.floor.turn) % len(self.floor.nodes)]

    def send(self, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if self.partner is not None:
            self.partner.askers.append(self)
            self.partner.send(payload)
            return
        self.answers += 1
        if self.answers % 2 == 0 and self.askers:
            self.askers.popleft().send(payload)


class FloorNode(WSListener):
    """Answers each frame with two."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """See picows."""
        transport.send(WSMsgType.TEXT, ACK)
        transport.send(WSMsgType.TEXT, RESULT)


async def _serve(port: int) -> None:
    server = await ws_create_server(_Floor().admit, "127.0.0.1", port)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(int(sys.argv[1])))
