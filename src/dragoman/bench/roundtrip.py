"""What does a job cost? Scheduler and store in processes of their own, sessions and nodes in this one, all clocks read.

The work unit: `utterance` (1 KiB of text) - choice among the nodes of its pair - `job_assign` - `job_ack` and
`job_result` (1 KiB) at once - `translation_result`. What is compared is processor time per job: it survives a noisy
machine better than the time on the wall.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final, Protocol

import msgspec
import psutil
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from dragoman.bench import load
from dragoman.bench.floor import UTTERANCE, FloorNode
from dragoman.bench.stores import StoreKind, running_store
from dragoman.children import Child, ChildError, free_port, instances

NODES: Final = 64
SLOTS: Final = 8
_WORDS: Final = ("last_failure",)
_SETTLE_S: Final = 0.3
_OPENED_S: Final = 0.2
_KNOWN_S: Final = 3.0
"""By then each instance has read about the nodes of the others: the default of refresh_interval_ms, and a second."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured."""

    in_flight: int
    runs: int
    warm_up_s: float
    run_s: float
    is_binary: bool = False
    store: StoreKind = "memory"
    instances: int = 1
    is_same_instance: bool = False
    """Whether session and node are at the same instance; else, where there are several, they never are."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave. Times in the units of their names; those of one kind of process are summed over all of it."""

    jobs: int
    failures: int
    last_failure: str
    """What a session was told last, of those failures."""
    jobs_per_s: float
    server_us_per_job: float
    store_us_per_job: float
    load_us_per_job: float
    total_us_per_job: float
    p50_ms: float
    p99_ms: float
    server_memory_mib: float


class Speaker(Protocol):
    """Something that always has one piece of work in flight."""

    failures: int
    last_failure: str
    is_stopped: bool

    def speak(self) -> None:
        """Begin."""
        ...


async def measure_roundtrip(options: Options, on_run: Callable[[Run], None]) -> list[Run]:
    """Measure jobs through real schedulers. Raises ChildError, EmbeddedError."""
    return await _measure(_schedulers(options), options, on_run)


async def measure_floor(options: Options, on_run: Callable[[Run], None]) -> list[Run]:
    """Measure the same frames with nothing between but two calls of the store. Raises ChildError, EmbeddedError."""
    return await _measure(_floor(options), options, on_run)


def median_of(runs: Sequence[Run]) -> Run:
    """The median of each figure; of failures, all there were."""
    figures = {name: median(getattr(run, name) for run in runs) for name in Run.__struct_fields__ if name not in _WORDS}
    said = next((run.last_failure for run in reversed(runs) if run.failures), "")
    counted = {"jobs": int(figures["jobs"]), "failures": sum(run.failures for run in runs), "last_failure": said}
    return Run(**{**figures, **counted})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """Running servers with speakers connected to them."""

    servers: Sequence[Child]
    store_cpu_s: Callable[[], float]
    speakers: Sequence[Speaker]
    latencies_s: list[float]

    def failures(self) -> int:
        return sum(speaker.failures for speaker in self.speakers)

    def last_failure(self) -> str:
        return next((speaker.last_failure for speaker in self.speakers if speaker.last_failure), "")

    def server_cpu_s(self) -> float:
        for server in self.servers:
            if server.exit_code is not None:
                raise ChildError(f"{server.name} ended with code {server.exit_code}\n{server.tail()}")
        return sum(server.cpu_s() for server in self.servers)


async def _measure(
    starting: AbstractAsyncContextManager[_Load], options: Options, on_run: Callable[[Run], None]
) -> list[Run]:
    runs: list[Run] = []
    async with starting as running:
        for speaker in running.speakers:
            speaker.speak()
        await asyncio.sleep(options.warm_up_s)
        if failures := running.failures():
            said = running.last_failure()
            raise ChildError(f"{failures} jobs failed while warming up, so there is nothing to measure: {said}")
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
    failures = running.failures()
    for speaker in running.speakers:
        speaker.last_failure = ""
    server_s, store_s, load_s = running.server_cpu_s(), running.store_cpu_s(), _cpu_s(here)
    began_s = time.perf_counter()
    await asyncio.sleep(run_s)
    latencies_s = sorted(running.latencies_s)
    wall_s = time.perf_counter() - began_s
    server_s, store_s = running.server_cpu_s() - server_s, running.store_cpu_s() - store_s
    load_s = _cpu_s(here) - load_s
    jobs = max(len(latencies_s), 1)
    return Run(
        jobs=len(latencies_s),
        failures=running.failures() - failures,
        last_failure=running.last_failure(),
        jobs_per_s=len(latencies_s) / wall_s,
        server_us_per_job=server_s / jobs * 1e6,
        store_us_per_job=store_s / jobs * 1e6,
        load_us_per_job=load_s / jobs * 1e6,
        total_us_per_job=(server_s + store_s + load_s) / jobs * 1e6,
        p50_ms=_quantile(latencies_s, 0.5) * 1e3,
        p99_ms=_quantile(latencies_s, 0.99) * 1e3,
        server_memory_mib=sum(server.memory_bytes() for server in running.servers) / 2**20,
    )


@asynccontextmanager
async def _schedulers(options: Options) -> AsyncIterator[_Load]:
    ports = [free_port() for _ in range(options.instances)]
    quiet = 'observability.log_level="error"'
    with running_store(options.store) as store, instances(ports, (quiet, *store.settings)) as running:
        for instance in running:
            await asyncio.to_thread(instance.child.wait_healthy, instance.port)
        urls = [instance.url for instance in running]
        latencies_s: list[float] = []
        nodes = await load.connect_nodes(
            [urls[_home(number, len(urls))] for number in range(NODES)], SLOTS, is_binary=options.is_binary
        )
        beating = asyncio.create_task(_heartbeats(nodes))
        sessions = await load.connect_sessions(
            [urls[_session_home(number, options)] for number in range(options.in_flight)],
            latencies_s.append,
            is_binary=options.is_binary,
        )
        await asyncio.sleep(_OPENED_S if len(urls) == 1 else _KNOWN_S)
        try:
            yield _Load(
                servers=[instance.child for instance in running],
                store_cpu_s=store.cpu_s,
                speakers=sessions,
                latencies_s=latencies_s,
            )
        finally:
            beating.cancel()


def _home(number: int, count: int) -> int:
    """The instance of a node: that of its pair, so that a session knows whether its nodes are where it is."""
    return number % len(load.PAIRS) % count


def _session_home(number: int, options: Options) -> int:
    """The instance of a session: one in turn of those that do not have its nodes, or the one that has."""
    home, others = _home(number, options.instances), options.instances - 1
    if options.is_same_instance or not others:
        return home
    return (home + 1 + number // len(load.PAIRS) % others) % options.instances


async def _heartbeats(nodes: list[load.Node]) -> None:
    while True:
        await asyncio.sleep(15)
        for node in nodes:
            node.heartbeat()


@asynccontextmanager
async def _floor(options: Options) -> AsyncIterator[_Load]:
    port = free_port()
    arguments = ["-m", "dragoman.bench.floor", str(port)]
    with running_store(options.store) as store, Child("floor", [*arguments, *store.settings]) as server:
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
        yield _Load(servers=[server], store_cpu_s=store.cpu_s, speakers=speakers, latencies_s=latencies_s)


class _FloorSpeaker(WSListener):
    def __init__(self, on_answer: Callable[[float], None]) -> None:
        self.failures = 0
        self.last_failure = ""
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
