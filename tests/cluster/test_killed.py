"""What do clients and nodes notice when an instance dies under load? A short pause, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.clients import Load, clients_at, introduce
from tests.cluster.fleet import PRESENCE_TTL_S, fleet_of, until
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)

WHOLE_S = PRESENCE_TTL_S + 4
BEFORE_S, AFTER_S = 1.0, 5.0
REFUSALS = frozenset({"NO_AVAILABLE_NODE"})


@both
async def test_the_jobs_and_sessions_of_a_killed_instance_go_on_elsewhere(shared: Shared) -> None:
    with fleet_of(3, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        dying, *others = fleet.instances
        homes = [[dying.url, others[0].url, others[1].url]] * 8 + [[others[0].url], [others[1].url]]
        async with (
            nodes_at(record, *[([others[at % 2].url], f"n{at}") for at in range(6)], delay_s=0.08) as nodes,
            clients_at(record, *homes) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients):
                await asyncio.sleep(BEFORE_S)
                dying.kill()
                killed_s = record.now_s()
                await asyncio.sleep(AFTER_S)
            print(record.figures(killed_s))
            record.assert_right()
            assert all(max(client.ready_s) - killed_s < 1.5 for client in clients[:8]), "resumed at once"
            assert record.troubled_for_s(killed_s) < WHOLE_S


@both
async def test_the_jobs_at_the_nodes_of_a_killed_instance_end_once(shared: Shared) -> None:
    with fleet_of(3, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        dying, *others = fleet.instances
        urls = [dying.url, others[0].url, others[1].url]
        async with (
            nodes_at(record, *[(urls, f"n{at}") for at in range(4)], ([others[0].url], "n4"), delay_s=0.3) as nodes,
            clients_at(record, *[[others[at % 2].url] for at in range(6)]) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients):
                await asyncio.sleep(BEFORE_S)
                dying.kill()
                killed_s = record.now_s()
                await asyncio.sleep(AFTER_S)
            print(record.figures(killed_s))
            record.assert_right()
            assert record.troubled_for_s(killed_s) < WHOLE_S


async def test_what_was_refused_and_asked_again_survives_its_instance_like_anything_else(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        dying, other = fleet.instances
        async with clients_at(record, [dying.url, other.url]) as [client]:
            request = await client.ask("nobody is there yet")
            await until(lambda: request.refusals)
            async with nodes_at(record, ([other.url], "n1"), delay_s=4):
                await until(lambda: record.jobs)
                await client.confirms()
                dying.kill()
                await client.hears(request)
                record.assert_right(refusals=REFUSALS)
                assert list(record.jobs.values()) == [1], "the node was left at its work"


@both
async def test_who_comes_back_long_after_the_death_of_an_instance_finds_everything(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        dying, other = fleet.instances
        async with (
            nodes_at(record, ([other.url], "n1"), delay_s=1, slots=4) as nodes,
            clients_at(record, *[[dying.url]] * 3) as clients,
        ):
            await introduce(fleet, nodes)
            requests = [await client.ask("left alone") for client in clients]
            await until(lambda: len(nodes[0].running) == len(requests))
            for client in clients:
                client.urls.clear()
            dying.kill()
            await asyncio.sleep(PRESENCE_TTL_S + 5)
            for client in clients:
                client.urls.append(other.url)
            await asyncio.gather(*[client.hears(request, 3) for client, request in zip(clients, requests, strict=True)])
            record.assert_right()
            assert sum(record.jobs.values()) == len(record.jobs), "none had to be done twice"
