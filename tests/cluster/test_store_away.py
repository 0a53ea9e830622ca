"""What happens while Valkey is away, and how soon is all well when it is back?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from dragoman.embedded import EmbeddedValkey, single_valkey, valkey_cluster
from tests.cluster.clients import Client, Load, clients_at, introduce
from tests.cluster.fleet import Fleet, fleet_of, until
from tests.cluster.nodes import ScriptedNode, nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow

DOWN = frozenset({"SCHEDULER_DEPENDENCY_DOWN"})
REFUSALS = DOWN | {"NO_AVAILABLE_NODE"}
"""What was refused may be asked again. Right after a start from nothing some nodes are not known yet."""


@contextmanager
def _own(replicas: int | None = None) -> Iterator[Shared]:
    """Servers of one's own, to do harm to."""
    if replicas is None:
        with single_valkey() as server:
            yield Shared(server)
    else:
        with valkey_cluster(replicas=replicas) as cluster:
            yield Shared(cluster)


@asynccontextmanager
async def _busy(
    shared: Shared, delay_s: float = 0.08
) -> AsyncIterator[tuple[Fleet, Record, list[ScriptedNode], list[Client]]]:
    """Two instances with nodes and clients on both."""
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record, (a, b) = Record(), fleet.urls
        async with (
            nodes_at(record, ([a], "n0"), ([b], "n1"), ([a], "n2"), ([b], "n3"), delay_s=delay_s) as nodes,
            clients_at(record, *[[a, b], [b, a]] * 3) as clients,
        ):
            await introduce(fleet, nodes)
            yield fleet, record, nodes, clients
        shared.assert_no_leak()


async def _is_refused(client: Client, within_s: float) -> None:
    """New work is refused, and soon: the client's other request may not have got so far either."""
    request = await client.ask("while it is away")
    await until(lambda: request.refusals, within_s, lambda: "it is not refused in time")
    assert request.refusals[0] in DOWN


async def test_a_valkey_that_restarts_empty_is_told_everything_again() -> None:
    with _own() as shared:
        async with _busy(shared) as (_, record, nodes, clients):
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                shared.server.kill()
                await _is_refused(clients[0], within_s=0.3)
                await asyncio.sleep(1)
                assert all(len(client.instance_ids) == 1 for client in clients), "connections stay up"
                shared.server.restart()
                back_s = record.now_s()
                await asyncio.sleep(4)
            print(record.figures(back_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(back_s) < 2.5
            for name in ("a", "b"):
                assert shared.call("EXISTS", shared.key(f"schedulers:presence:{name}"))
            for node in nodes:
                assert shared.call("GET", shared.key(f"nodes:owner:{{node:{node.name}}}")) in (b"a", b"b")
                assert b'"ready"' in shared.call("GET", shared.key(f"v1:nodes:snapshot:{{node:{node.name}}}"))
            for client in clients:
                client.drop()
            await until(lambda: all(len(client.instance_ids) > 1 for client in clients))
            await asyncio.gather(*[client.asks("still here") for client in clients])
            assert [client.reopened for client in clients] == [0] * len(clients), "sessions can be resumed"
            record.assert_right(refusals=REFUSALS)


async def test_results_that_come_while_valkey_is_away_are_delivered_when_it_is_back() -> None:
    with _own() as shared:
        async with _busy(shared, delay_s=1) as (_, record, _, clients):
            known = len(record.jobs)
            requests = [await client.ask("before") for client in clients]
            await until(lambda: len(record.jobs) == known + len(clients))
            shared.server.kill()
            await asyncio.sleep(2)
            shared.server.restart()
            back_s = record.now_s()
            await asyncio.gather(*[client.hears(request, 5) for client, request in zip(clients, requests, strict=True)])
            print(record.figures(back_s))
            assert sum(record.jobs.values()) == len(record.jobs), "none had to be done twice"
            record.assert_right()


async def test_a_valkey_that_stands_still_for_5_s_is_waited_for() -> None:
    with _own() as shared:
        async with _busy(shared) as (_, record, _, clients):
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                shared.server.pause()
                await _is_refused(clients[0], within_s=1.5)
                await _is_refused(clients[1], within_s=0.3)
                await asyncio.sleep(3)
                shared.server.resume()
                back_s = record.now_s()
                await asyncio.sleep(4)
            print(record.figures(back_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(back_s) < 2.5


async def test_a_cluster_that_loses_a_master_is_whole_again_when_its_replica_has_taken_over() -> None:
    with _own(replicas=1) as shared:
        async with _busy(shared) as (_, record, _, clients):
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                killed: EmbeddedValkey = shared.servers.masters[0]  # type: ignore[union-attr]
                killed.kill()
                killed_s = record.now_s()
                await asyncio.sleep(9)
            print(record.figures(killed_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(killed_s) < 8


async def test_scripts_that_are_flushed_under_load_are_not_missed() -> None:
    with _own() as shared:
        async with _busy(shared) as (_, record, _, clients):
            async with Load(clients, at_once=1):
                for _ in range(5):
                    await asyncio.sleep(0.3)
                    shared.server.call("SCRIPT", "FLUSH", "SYNC")
            print(record.figures())
            record.assert_right()


async def test_a_valkey_without_memory_refuses_and_recovers() -> None:
    with _own() as shared:
        async with _busy(shared) as (_, record, _, clients):
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                shared.server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
                shared.server.call("CONFIG", "SET", "maxmemory", "1mb")
                await _is_refused(clients[0], within_s=0.3)
                await asyncio.sleep(1)
                shared.server.call("CONFIG", "SET", "maxmemory", "0")
                back_s = record.now_s()
                await asyncio.sleep(3)
            print(record.figures(back_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(back_s) < 2.5
