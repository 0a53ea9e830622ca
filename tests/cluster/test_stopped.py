"""What if an instance stands still for so long that it counts as dead, and then goes on?"""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.clients import Load, clients_at, introduce
from tests.cluster.fleet import PRESENCE_TTL_S, fleet_of
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow

STOPPED_S = PRESENCE_TTL_S + 3
REFUSALS = frozenset({"SCHEDULER_DEPENDENCY_DOWN", "NO_AVAILABLE_NODE"})


async def test_an_instance_that_stood_still_lets_go_of_what_others_have_taken_over(shared: Shared) -> None:
    with fleet_of(3, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        stopped, b, c = fleet.instances
        async with (
            nodes_at(record, ([b.url], "n0"), ([c.url], "n1"), ([b.url], "n2"), delay_s=0.1) as nodes,
            # Clients that look for another instance when one does not answer.
            clients_at(record, *[[stopped.url, b.url, c.url]] * 4, [b.url], [c.url], patience_s=1.5) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                stopped.pause()
                stopped_s = record.now_s()
                await asyncio.sleep(STOPPED_S)
                stopped.go_on()
                went_on_s = record.now_s()
                await asyncio.sleep(3)
            print(record.figures(stopped_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(went_on_s) == 0
            assert all(client.reopened == 0 for client in clients)
            await stopped.says("is another instance's by now")


async def test_clients_that_waited_for_an_instance_that_stood_still_get_everything_from_it(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        stopped, other = fleet.instances
        async with (
            nodes_at(record, ([other.url], "n0"), ([other.url], "n1"), delay_s=0.3) as nodes,
            clients_at(record, [stopped.url, other.url], [stopped.url, other.url]) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                stopped.pause()
                await asyncio.sleep(STOPPED_S)
                stopped.go_on()
                went_on_s = record.now_s()
                await asyncio.sleep(3)
            print(record.figures(went_on_s))
            record.assert_right(refusals=REFUSALS)
            assert record.troubled_for_s(went_on_s) < 2


async def test_nodes_of_an_instance_that_stood_still_never_get_too_much(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        stopped, other = fleet.instances
        async with (
            nodes_at(
                record, ([stopped.url, other.url], "n0"), ([stopped.url], "n1"), ([other.url], "n2"), delay_s=0.5
            ) as nodes,
            clients_at(record, *[[other.url]] * 4) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients, at_once=1):
                await asyncio.sleep(1)
                stopped.pause()
                stopped_s = record.now_s()
                await asyncio.sleep(1)
                nodes[0].drop()  # it finds the other instance, the second node waits
                await asyncio.sleep(STOPPED_S - 1)
                stopped.go_on()
                await asyncio.sleep(3)
            print(record.figures(stopped_s))
            record.assert_right(refusals=REFUSALS)
            assert max(node.most for node in nodes) <= 2
