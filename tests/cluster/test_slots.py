"""Does no node ever get more than it can carry, and does no slot stay taken for nothing?"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.cluster.clients import Client, clients_at, introduce
from tests.cluster.fleet import LEASE_S, PRESENCE_TTL_S, fleet_of, until
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)

CLIENTS, NODES, JOBS = 16, 8, 6


@both
async def test_four_instances_that_fight_for_every_slot_never_give_a_node_too_much(shared: Shared) -> None:
    with fleet_of(4, shared) as fleet:
        await fleet.is_ready()
        record, urls = Record(), fleet.urls
        async with (
            nodes_at(record, *[([urls[at % 4]], f"n{at}") for at in range(NODES)], delay_s=0.075) as nodes,
            clients_at(record, *[[url] for url in urls for _ in range(CLIENTS)]) as clients,
        ):
            await introduce(fleet, nodes)
            began_s = record.now_s()
            await asyncio.gather(*[_ask(client) for client in clients])
            print(f"{record.figures()}, in {record.now_s() - began_s:.1f} s")
            record.assert_right()
            assert len(record.requests) == 4 * CLIENTS * JOBS
            assert max(node.most for node in nodes) == 2, "and never less than it can carry, when all want it"
            for node in nodes:
                await until(lambda: shared.call("ZCARD", shared.slots(node.name)) == 0, 3)  # noqa: B023


async def _ask(client: Client) -> None:
    for number in range(JOBS):
        await client.asks(f"number {number}", within_s=30)


@both
async def test_a_slot_that_is_taken_for_no_job_is_found_and_given_back(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with (
            nodes_at(record, ([fleet[0].url], "n1"), slots=1) as [node],
            clients_at(record, [fleet[1].url]) as [client],
        ):
            await introduce(fleet, [node])
            deadline_ms = int(time.time() * 1000) + 3_600_000
            shared.call("ZADD", shared.slots("n1"), deadline_ms + 1 / 4096, "job-of-nobody")
            began_s = record.now_s()
            await client.asks("it has to wait for that")
            assert record.now_s() - began_s < LEASE_S
            await fleet[0].says("leaked slot found")
            assert shared.call("ZCARD", shared.slots("n1")) == 0
            record.assert_right()


async def test_the_slots_of_a_node_that_died_with_its_instance_are_free_after_the_lease(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        dying, other = fleet.instances
        async with (
            nodes_at(record, ([dying.url], "n1")) as [node],
            clients_at(record, [dying.url, other.url]) as [client],
        ):
            await introduce(fleet, [node])
            node.is_silent = True
            for number in range(2):
                await client.ask(f"left behind {number}")
            await until(lambda: shared.call("ZCARD", shared.slots("n1")) == 2)
            dying.kill()
            killed_s = record.now_s()
            await until(lambda: shared.call("ZCARD", shared.slots("n1")) == 0, LEASE_S + PRESENCE_TTL_S)
            print(f"free after {record.now_s() - killed_s:.1f} s")
            assert record.now_s() - killed_s < LEASE_S + 2
            async with nodes_at(record, ([other.url], "n2")):
                for request in client.requests.values():
                    await client.hears(request)
            record.assert_right(refusals=frozenset({"NO_AVAILABLE_NODE"}))
