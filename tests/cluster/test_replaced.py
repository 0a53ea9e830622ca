"""What do clients and nodes notice when instances are replaced one by one under load? Nothing that matters."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.clients import Load, clients_at, introduce
from tests.cluster.fleet import fleet_of
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)


def _turned(urls: list[str], by: int) -> list[str]:
    at = by % len(urls)
    return urls[at:] + urls[:at]


@both
async def test_instances_are_replaced_one_by_one_and_nothing_is_lost_doubled_or_refused(shared: Shared) -> None:
    with fleet_of(3, shared) as fleet:
        await fleet.is_ready()
        record, urls = Record(), fleet.urls
        async with (
            nodes_at(record, *[(_turned(urls, at), f"n{at}") for at in range(5)], delay_s=0.1) as nodes,
            clients_at(record, *[_turned(urls, at) for at in range(9)]) as clients,
        ):
            await introduce(fleet, nodes)
            async with Load(clients, at_once=2):
                for instance in fleet.instances:
                    await asyncio.sleep(0.5)
                    began_s = record.now_s()
                    instance.drain()
                    assert await instance.ended() == 0
                    print(f"{instance.name} drained in {record.now_s() - began_s:.1f} s")
                    await instance.restart()
            print(record.figures(began_s))
            record.assert_right()
