"""What does a job cost? A scheduler in a process of its own, sessions and nodes in this one, and the clock of both.

The work unit: `utterance` (1 KiB of text) - choice among the nodes of its pair - `job_assign` - `job_ack` and
`job_result` (1 KiB) at once - `translation_result`. What is compared is processor time per job: it survives a noisy
machine better than the time on the wall.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import msgspec
import psutil
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dragoman.bench import load
from dragoman.bench.floor import UTTERANCE, FloorNode
from dragoman.children import Child, free_port

NODES: Final = 64
SLOTS: Final = 8
_SETTLE_S: Final = 0.3


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    in_flight: int
    runs: int
    warm_up_s: float
    run_s: float
    is_binary: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave. Times in the units of their names."""

    jobs: int
    failures: int
    jobs_per_s: float
    server_us_per_job: float
    load_us_per_job: float
    p50_ms: float
    p99_ms: float
    server_memory_mib: float


class Speaker(Protocol):
    """Something that always has one piece of work in flight."""

    failures: int
    is_stopped: bool

    def speak(self) -> None:
        """Begin."""
        ...


async def measure_roundtrip(options: Options, on_run: Callable[[Run], None]) -> list[Run]:
    """Measure jobs through a real scheduler over its memory store."""
    return await _measure(_scheduler(options), options, on_run)


async def measure_floor(options: Options, on_run: Callable[[Run], None]) -> list[Run]:
    """Measure the same frames with nothing between."""
    return await _measure(_floor(options), options, on_run)


class _Load:
    """A running server with speakers connected to it."""

    def __init__(self, server: Child, speakers: list[Speaker], latencies_s: list[float]) -> None:
        self.server = server
        self.speakers = speakers
        self.latencies_s = latencies_s


async def _measure(
    starting: AbstractAsyncContextManager[_Load], options: Options, on_run: Callable[[Run], None]
) -> list[Run]:
    runs: list[Run] = []
    async with starting as running:
        for speaker in running.speakers:
            speaker.speak()
        await asyncio.sleep(options.warm_up_s)
        for _ in range(options.runs):
            runs.append(await _run(running, options.run_s))
            on_run(runs[-1])
        for speaker in running.speakers:
            speaker.is_stopped = True
        await asyncio.sleep(_SETTLE_S)
    return runs


async def _run(running: _Load, run_s: float) -> Run:
    here = psutil.Process()
    running.latencies_s.clear()
    failures = sum(speaker.failures for speaker in running.speakers)
    server_s, load_s, wall_s = running.server.cpu_s(), _cpu_s(here), time.perf_counter()
    await asyncio.sleep(run_s)
    latencies_s = sorted(running.latencies_s)
    server_s, load_s, wall_s = running.server.cpu_s() - server_s, _cpu_s(here) - load_s, time.perf_counter() - wall_s
    jobs = max(len(latencies_s), 1)
    return Run(
        jobs=len(latencies_s),
        failures=sum(speaker.failures for speaker in running.speakers) - failures,
        jobs_per_s=jobs / wall_s,
        server_us_per_job=server_s / jobs * 1e6,
        load_us_per_job=load_s / jobs * 1e6,
        p50_ms=_quantile(latencies_s, 0.5) * 1e3,
        p99_ms=_quantile(latencies_s, 0.99) * 1e3,
        server_memory_mib=running.server.memory_bytes() / 2**20,
    )


@asynccontextmanager
async def _scheduler(options: Options) -> AsyncIterator[_Load]:
    port = free_port()
    arguments = ["-m", "dragoman", "serve", "--set", f"server.port={port}", "--set", 'observability.log_level="error"']
    with Child("scheduler", arguments) as server:
        await asyncio.to_thread(server.wait_healthy, port)
        url = f"ws://127.0.0.1:{port}"
        latencies_s: list[float] = []
        nodes = await load.connect_nodes(url, NODES, SLOTS, is_binary=options.is_binary)
        beating = asyncio.create_task(_heartbeats(nodes))
        sessions = await load.connect_sessions(url, options.in_flight, latencies_s.append, is_binary=options.is_binary)
        await asyncio.sleep(0.2)
        try:
            yield _Load(server, list(sessions), latencies_s)
        finally:
            beating.cancel()


async def _heartbeats(nodes: list[load.Node]) -> None:
    while True:
        await asyncio.sleep(15)
        for node in nodes:
            node.heartbeat()


@asynccontextmanager
async def _floor(options: Options) -> AsyncIterator[_Load]:
    port = free_port()
    with Child("floor", ["-m", "dragoman.bench.floor", str(port)]) as server:
        await asyncio.to_thread(server.wait_for, "listening")
        url = f"ws://127.0.0.1:{port}"
        latencies_s: list[float] = []
        for _ in range(NODES):
            await ws_connect(FloorNode, f"{url}/ws/node")
        speakers: list[Speaker] = []
        for _ in range(options.in_flight):
            _, speaker = await ws_connect(lambda: _FloorSpeaker(latencies_s.append), f"{url}/ws/session")
            assert isinstance(speaker, _FloorSpeaker)
            speakers.append(speaker)
        yield _Load(server, speakers, latencies_s)


class _FloorSpeaker(WSListener):
    def __init__(self, on_answer: Callable[[float], None]) -> None:
        self.failures = 0
        self.is_stopped = False
        self._on_answer = on_answer
        self._transport: WSTransport | None = None
        self._sent_s = 0.0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def speak(self) -> None:
        assert self._transport is not None
        self._sent_s = time.perf_counter()
        self._transport.send(WSMsgType.TEXT, UTTERANCE)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._on_answer(time.perf_counter() - self._sent_s)
            if not self.is_stopped:
                self.speak()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else float("nan")
