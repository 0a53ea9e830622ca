"""How many round trips does a slot cost, when the fleet is nearly full and nobody's picture of it is fresh?"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from random import Random
from typing import Any

import pytest

from dragoman.app import App, running_app
from dragoman.config.settings import Settings
from dragoman.core.ids import JobId
from dragoman.embedded import single_valkey, valkey_cluster
from dragoman.protocol.node_messages import JobAssign
from tests.support.world import FakeNode, FakeSession, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

INSTANCES, NODES, SLOTS, LOAD = 4, 200, 4, 0.9
JOB_S = 2.0
WARM_UP_S, MEASURED_S = 5.0, 6.0


@contextmanager
def _redis(mode: str) -> Iterator[dict[str, Any]]:
    if mode == "single":
        with single_valkey() as server:
            yield {"mode": "single", "url": server.url}
    else:
        with valkey_cluster() as cluster:
            yield {"mode": "cluster", "cluster_urls": list(cluster.urls)}


class _Node(FakeNode):
    """Takes its time over each job."""

    def __init__(self, world: World, node_id: str, rng: Random) -> None:
        super().__init__(world, node_id)
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self.running_jobs: set[tuple[str, int]] = set()
        self.most = 0
        self.answered = 0
        self.connection.write_frames = self._work

    def _work(self) -> None:
        frames, self.connection._frames = self.connection._frames, []
        for frame in frames:
            message = self.connection.decode(frame)
            if isinstance(message, JobAssign):
                self.running_jobs.add((message.job_id, message.attempt_id))
                self.most = max(self.most, len(self.running_jobs))
                self._loop.call_soon(self.ack, message)
                self._loop.call_later(self._rng.expovariate(1 / JOB_S), self._answer, message)

    def _answer(self, job: JobAssign) -> None:
        self.running_jobs.discard((job.job_id, job.attempt_id))
        self.answered += 1
        self.finish(job)


def _count_trips(app: App, trips: Counter[JobId]) -> None:
    """Count each call that asks the store for a slot."""
    store: Any = app.parts.store
    reserve = store._reserve

    async def counting(job_id: JobId, *arguments: Any) -> Any:
        trips[job_id] += 1
        return await reserve(job_id, *arguments)

    store._reserve = counting


async def _measure(redis: dict[str, Any]) -> tuple[list[int], int, Counter[str]]:
    """The trips of each job, the most jobs at one node, and how the jobs ended."""
    rng = Random(7)
    trips: Counter[JobId] = Counter()
    values: dict[str, Any] = {"server": {"port": 0}, "scheduler": {"phase2": {"enabled": True, "redis": redis}}}
    async with AsyncExitStack() as stack:
        worlds: list[World] = []
        for number in range(INSTANCES):
            app = await stack.enter_async_context(running_app(Settings.model_validate(values), rng=Random(number)))
            _count_trips(app, trips)
            worlds.append(World(app))
        nodes = [_Node(world, f"n{at}", rng) for at, world in zip(range(NODES), itertools.cycle(worlds), strict=False)]
        for node in nodes:
            node.register(max_concurrent_jobs=SLOTS)
            await asyncio.sleep(0)
        await asyncio.sleep(0.5)
        for node in nodes:
            node.running = None
            node.heartbeat()
        sessions = []
        for world in worlds:
            sessions.append(FakeSession(world))
            await sessions[-1].open()
        await asyncio.sleep(3)
        loop = asyncio.get_running_loop()
        begun_s, is_measured, spoken = loop.time(), False, 0
        while loop.time() < begun_s + WARM_UP_S + MEASURED_S:
            if not is_measured and loop.time() > begun_s + WARM_UP_S:
                is_measured = True
                trips.clear()
            # As many jobs as make the load, whatever the machine is doing besides: one for each that ends.
            while spoken - sum(node.answered for node in nodes) < LOAD * NODES * SLOTS:
                rng.choice(sessions).speak("hello")
                spoken += 1
                if spoken % 20 == 0:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.005)
        counted = list(trips.values())
        deadline_s = loop.time() + 30
        while any(node.running_jobs for node in nodes) and loop.time() < deadline_s:
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        ends = Counter(end for session in sessions for _, end in session.terminals)
        return counted, max(node.most for node in nodes), ends


@pytest.mark.parametrize("mode", ["single", "cluster"])
def test_a_slot_costs_little_more_than_one_round_trip_at_nine_tenths_of_the_load(mode: str) -> None:
    with _redis(mode) as redis:
        trips, most, ends = asyncio.run(_measure(redis))
    trips.sort()
    mean, p99 = sum(trips) / len(trips), trips[int(len(trips) * 0.99)]
    print(f"{mode}: {len(trips)} jobs, mean {mean:.3f}, p99 {p99}, most {trips[-1]}; ends {dict(ends)}")
    assert len(trips) > 1000
    assert set(ends) == {"result"}
    assert most <= SLOTS
    assert mean <= 1.2
    assert p99 <= 3
