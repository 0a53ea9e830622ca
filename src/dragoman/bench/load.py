"""Who speaks and who translates in a measurement? Sessions that always have one utterance in flight, and instant nodes.

Both run in one process of their own and do as little as they can: what is measured is the program between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL
from dragoman.protocol.node_messages import (
    CapabilityByType,
    Hardware,
    JobAck,
    JobResult,
    LanguageDeclaration,
    NmtDeclaration,
    NodeHeartbeat,
    NodeRegister,
    PairDeclaration,
    ResourceUsage,
)
from dragoman.protocol.session_messages import SessionInit, Utterance

PAIRS: Final = tuple((src, tgt) for src in ("en", "zh", "de", "fr") for tgt in ("pt", "es", "ja", "ko"))
"""16 language pairs; each node serves one of them."""

PAYLOAD: Final = b"The quick brown fox jumps over the lazy dog. " * 23
"""A little more than 1 KiB of text."""


class _Assigned(msgspec.Struct):
    """What a node must read of `job_assign` to answer it."""

    job_id: str
    attempt_id: int
    session_id: str
    utterance_index: int
    trace_id: str


class _Peer(WSListener):
    """One socket of the load."""

    def __init__(self, *, is_binary: bool) -> None:
        self.transport: WSTransport | None = None
        self.is_binary = is_binary
        self.kind = WSMsgType.BINARY if is_binary else WSMsgType.TEXT
        wire: Any = msgspec.msgpack if is_binary else msgspec.json
        self.encode: Callable[[Any], bytes] = wire.Encoder().encode
        self.opened: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """See picows."""
        self.transport = transport

    def send(self, message: msgspec.Struct) -> None:
        """Send a message."""
        assert self.transport is not None
        self.transport.send(self.kind, self.encode(message))


class Node(_Peer):
    """Answers each job at once."""

    def __init__(self, number: int, *, is_binary: bool) -> None:
        super().__init__(is_binary=is_binary)
        self.node_id = f"bench-{number}"
        self.pair = PAIRS[number % len(PAIRS)]
        wire: Any = msgspec.msgpack if is_binary else msgspec.json
        self._decoder = wire.Decoder(_Assigned)

    def register(self, slots: int) -> None:
        """Say who it is."""
        src, tgt = self.pair
        nmt = NmtDeclaration(
            model_id="bench",
            languages=[src, tgt],
            rule="specific_pairs",
            supported_pairs=[PairDeclaration(src=src, tgt=tgt)],
        )
        self.send(
            NodeRegister(
                node_id=self.node_id,
                version="bench",
                platform="bench",
                hardware=Hardware(cpu_cores=1, memory_gb=1),
                installed_models=[],
                capability_by_type=_READY,
                features_supported={},
                accept_public_jobs=True,
                language_capabilities=LanguageDeclaration(nmt_capabilities=[nmt]),
                max_concurrent_jobs=slots,
            )
        )

    def heartbeat(self) -> None:
        """Say that it is well."""
        usage = ResourceUsage(cpu_percent=1, mem_percent=1, running_jobs=0)
        self.send(
            NodeHeartbeat(
                node_id=self.node_id,
                timestamp=int(time.time() * 1000),
                resource_usage=usage,
                installed_services=[],
                capability_by_type=_READY,
            )
        )

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """See picows."""
        payload = frame.get_payload_as_bytes()
        if not self.opened.done():
            self.opened.set_result(payload)
            return
        if b"job_assign" not in payload[:24]:
            return
        job = self._decoder.decode(payload)
        self.send(
            JobAck(
                job_id=job.job_id,
                attempt_id=job.attempt_id,
                node_id=self.node_id,
                session_id=job.session_id,
                trace_id=job.trace_id,
            )
        )
        self.send(
            JobResult(
                job_id=job.job_id,
                attempt_id=job.attempt_id,
                node_id=self.node_id,
                session_id=job.session_id,
                utterance_index=job.utterance_index,
                success=True,
                trace_id=job.trace_id,
                text_translated=PAYLOAD.decode(),
            )
        )


class Session(_Peer):
    """Has one utterance in flight, always."""

    def __init__(self, number: int, on_result: Callable[[float], None], *, is_binary: bool) -> None:
        super().__init__(is_binary=is_binary)
        self.src, self.tgt = PAIRS[number % len(PAIRS)]
        self.session_id = ""
        self.failures = 0
        self.last_failure = ""
        self._index = 0
        self._sent_s = 0.0
        self._on_result = on_result
        self.is_stopped = False

    def open(self) -> None:
        """Open the session."""
        self.send(SessionInit(client_version="bench", platform="bench", src_lang=self.src, tgt_lang=self.tgt))

    def speak(self) -> None:
        """Send the next utterance."""
        self._sent_s = time.perf_counter()
        self.send(
            Utterance(
                session_id=self.session_id,
                utterance_index=self._index,
                manual_cut=True,
                src_lang=self.src,
                tgt_lang=self.tgt,
                audio=PAYLOAD,
                audio_format="text",
                sample_rate=0,
            )
        )
        self._index += 1

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """See picows."""
        if frame.msg_type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            return
        payload = frame.get_payload_as_bytes()
        if not self.opened.done():
            self.opened.set_result(payload)
            return
        if b"translation_result" in payload[:32]:
            self._on_result(time.perf_counter() - self._sent_s)
        elif b"error" in payload[:16] or b"missing_result" in payload[:28]:
            self.failures += 1
            self.last_failure = payload[:_SHOWN_BYTES].decode(errors="replace")
        else:
            return
        if not self.is_stopped:
            self.speak()


_SHOWN_BYTES: Final = 400
_READY: Final = [CapabilityByType(type=kind, ready=True) for kind in ("asr", "nmt", "tts")]


async def connect_nodes(urls: Sequence[str], slots: int, *, is_binary: bool) -> list[Node]:
    """Connect a node to each of these instances and wait until each is ready."""
    nodes = [Node(number, is_binary=is_binary) for number in range(len(urls))]
    for node, url in zip(nodes, urls, strict=True):
        await _connect(f"{url}/ws/node", node)
        node.register(slots)
    await asyncio.gather(*(node.opened for node in nodes))
    for node in nodes:
        node.heartbeat()
    return nodes


async def connect_sessions(
    urls: Sequence[str], on_result: Callable[[float], None], *, is_binary: bool
) -> list[Session]:
    """Connect a session to each of these instances and open it."""
    wire: Any = msgspec.msgpack if is_binary else msgspec.json
    sessions = [Session(number, on_result, is_binary=is_binary) for number in range(len(urls))]
    for session, url in zip(sessions, urls, strict=True):
        await _connect(f"{url}/ws/session", session)
        session.open()
    for session in sessions:
        session.session_id = wire.decode(await session.opened)["session_id"]
    return sessions


async def _connect(url: str, peer: _Peer) -> None:
    headers = {"Sec-WebSocket-Protocol": MSGPACK_SUBPROTOCOL} if peer.is_binary else {}
    await ws_connect(lambda: peer, url, extra_headers=headers)
