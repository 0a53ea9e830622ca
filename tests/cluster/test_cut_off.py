"""What if one instance cannot reach the store, or only badly, while the others can?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from tests.cluster.clients import Load, clients_at, introduce
from tests.cluster.fleet import PRESENCE_TTL_S, Fleet, fleet_of, until
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow

REFUSALS = frozenset({"SCHEDULER_DEPENDENCY_DOWN", "NO_AVAILABLE_NODE"})


class Way:
    """The way of one instance to the store. It can be cut, slowed down, and made to break now and then."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rng = Random(1)
        self._streams: set[asyncio.StreamWriter] = set()
        self.is_cut = False
        self.delay_s = 0.0
        self.reset_part = 0.0
        """Which part of what goes by breaks the connection."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, there and back."""
        if self.is_cut:
            writer.close()
            return
        ends = {writer}
        self._streams |= ends
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            ends.add(back)
            self._streams |= ends
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            writer.transport.abort()
        finally:
            self._streams -= ends

    @property
    def is_used(self) -> bool:
        """Whether there are connections."""
        return bool(self._streams)

    def cut(self) -> None:
        """Nothing gets through any more."""
        self.is_cut = True
        for stream in self._streams:
            stream.transport.abort()

    def mend(self) -> None:
        """Everything gets through."""
        self.is_cut = False
        self.delay_s = self.reset_part = 0.0

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self._rng.random() < self.reset_part:
                    break
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
        writer.transport.abort()


@asynccontextmanager
async def _way_to(shared: Shared) -> AsyncIterator[tuple[Way, str]]:
    way = Way(shared.server.port)
    server = await asyncio.start_server(way.carry, "127.0.0.1", 0)
    try:
        yield way, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        way.cut()
        await until(lambda: not way.is_used)
        await server.wait_closed()


def _join(fleet: Fleet, url: str) -> None:
    fleet.start("z", **{"scheduler.phase2.redis.url": url})


async def test_an_instance_that_is_cut_off_refuses_and_is_whole_again_when_it_is_not(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        async with _way_to(shared) as (way, url):
            _join(fleet, url)
            await fleet.is_ready()
            record, (a, b, z) = Record(), fleet.urls
            async with (
                nodes_at(record, ([a], "n0"), ([z], "n1"), ([b], "n2"), ([z], "n3"), delay_s=0.1) as nodes,
                clients_at(record, *[[z]] * 4, [a], [b]) as clients,
            ):
                await introduce(fleet, nodes)
                async with Load(clients, at_once=1):
                    await asyncio.sleep(1)
                    way.cut()
                    request = await clients[0].ask("cut off")
                    await until(lambda: request.refusals, 0.5)
                    await asyncio.sleep(PRESENCE_TTL_S + 2)
                    assert [len(client.instance_ids) for client in clients] == [1] * 6, "connections stay up"
                    way.mend()
                    mended_s = record.now_s()
                    await asyncio.sleep(5)
                print(record.figures(mended_s))
                record.assert_right(refusals=REFUSALS)
                assert record.troubled_for_s(mended_s) < 3
                assert max(node.most for node in nodes) <= 2


async def test_a_bad_way_to_the_store_costs_time_and_nothing_else(shared: Shared) -> None:
    with fleet_of(1, shared) as fleet:
        async with _way_to(shared) as (way, url):
            _join(fleet, url)
            await fleet.is_ready()
            record, (a, z) = Record(), fleet.urls
            async with (
                nodes_at(record, ([a], "n0"), ([z], "n1"), delay_s=0.1, slots=4) as nodes,
                clients_at(record, *[[z]] * 3, [a]) as clients,
            ):
                await introduce(fleet, nodes)
                async with Load(clients, at_once=1):
                    way.delay_s, way.reset_part = 0.2, 0.05
                    await asyncio.sleep(6)
                    way.mend()
                    mended_s = record.now_s()
                    await asyncio.sleep(4)
                print(record.figures(mended_s))
                record.assert_right(refusals=REFUSALS)
                # A letter that was on its way when the connection broke is found by the next look for such.
                assert record.troubled_for_s(mended_s) < 5
                assert max(node.most for node in nodes) <= 4
