"""What would the frames of a job cost with nothing between them? The floor under every figure of a round trip.

The same WebSocket library, frames of the same sizes in the same order, and no scheduler: a session's frame goes to a
node, the node's two answers come back, the second goes to the session. With a shared store, two bare scripts for each
job on one connection: one that takes a slot and writes the job down before the frame goes to the node, one that writes
the result down and gives the slot back before it goes to the session.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import deque
from typing import Any, Final

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from dragoman.bench.load import PAYLOAD
from dragoman.config.file import load_settings
from dragoman.loop import run
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.servers import Servers, make_servers

UTTERANCE = b'{"type":"utterance","session_id":"s-0123456789abcdef","audio":"%s"}' % (b"A" * (len(PAYLOAD) * 4 // 3))
ACK = b'{"type":"job_ack","job_id":"job-%s","attempt_id":1}' % (b"0" * 150)
RESULT = b'{"type":"job_result","job_id":"job-%s","text_translated":"%s"}' % (b"0" * 150, PAYLOAD)

_REQUEST: Final = b"q" * 300 + PAYLOAD
"""What a scheduler writes down of a request: a node that fails must not lose what was said."""
_SLOTS: Final = 10_000
_KEEP_MS: Final = 90_000

_BEGIN: Final = Script(
    "floor_begin",
    """
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 'full' end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[2], 'state', 'reserved', 'request', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 'taken'
""",
)
_END: Final = Script(
    "floor_end",
    """
redis.call('HSET', KEYS[2], 'state', 'finished', 'terminal', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZREM', KEYS[1], ARGV[1])
return 'moved'
""",
)


class _Floor:
    """Pairs each session with a node, and passes frames between them unread."""

    def __init__(self, servers: Servers | None) -> None:
        self.nodes: list[_Passing] = []
        self.turn = itertools.count()
        self.jobs = itertools.count()
        self.servers = servers

    def admit(self, request: WSUpgradeRequest) -> WSListener:
        """Take every connection."""
        return _Passing(self, is_node=request.path.startswith(b"/ws/node"))


class _Passing(WSListener):
    def __init__(self, floor: _Floor, *, is_node: bool) -> None:
        self.floor = floor
        self.is_node = is_node
        self.transport: WSTransport | None = None
        self.partner: _Passing | None = None
        self.askers: deque[tuple[_Passing, bytes]] = deque()
        self.answers = 0
        self.slots_key = b""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self.is_node:
            self.slots_key = b"floor:{node-%d}:slots" % len(self.floor.nodes)
            self.floor.nodes.append(self)
        else:
            self.partner = self.floor.nodes[next(self.floor.turn) % len(self.floor.nodes)]

    def send(self, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.send(WSMsgType.TEXT, payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        if self.partner is not None:
            self.partner.take(self, payload)
            return
        self.answers += 1
        if self.answers % 2 == 0 and self.askers:
            self.give(*self.askers.popleft(), payload)

    def take(self, asker: _Passing, payload: bytes) -> None:
        """A frame of a session: to this node, once the store knows of it."""
        servers = self.floor.servers
        if servers is None:
            self.askers.append((asker, b""))
            self.send(payload)
            return
        job = b"%d" % next(self.floor.jobs)

        def begun(answer: asyncio.Future[Any]) -> None:
            if answer.result() != b"taken":
                raise RuntimeError("there are too few slots on the floor")
            self.askers.append((asker, job))
            self.send(payload)

        keys = (self.slots_key, self._job_key(job))
        servers.run(_BEGIN, keys, (_SLOTS, _KEEP_MS, job, _REQUEST, _KEEP_MS)).add_done_callback(begun)

    def give(self, asker: _Passing, job: bytes, payload: bytes) -> None:
        """The answer of this node: to who asked, once the store knows of it."""
        servers = self.floor.servers
        if servers is None:
            asker.send(payload)
            return
        ended = servers.run(_END, (self.slots_key, self._job_key(job)), (job, payload, _KEEP_MS))
        ended.add_done_callback(lambda answer: asker.send(payload) if answer.result() else None)

    def _job_key(self, job: bytes) -> bytes:
        # With the tag of the node: both keys of a script must be at one server.
        return self.slots_key + b":" + job


class FloorNode(WSListener):
    """Answers each frame with two."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """See picows."""
        transport.send(WSMsgType.TEXT, ACK)
        transport.send(WSMsgType.TEXT, RESULT)


async def _serve(port: int, settings: list[str]) -> None:
    servers: Servers | None = None
    if settings:
        servers = make_servers(load_settings(None, {}, settings).scheduler.phase2.redis, (_BEGIN, _END))
        await servers.open()
    server = await ws_create_server(_Floor(servers).admit, "127.0.0.1", port)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(_serve(int(sys.argv[1]), sys.argv[2:]))
