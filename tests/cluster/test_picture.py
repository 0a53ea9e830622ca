"""Does every instance know how the nodes of the others are?"""

from __future__ import annotations

import pytest

from dragoman.protocol.fields import Error
from tests.cluster.clients import Client, clients_at
from tests.cluster.fleet import fleet_of, until
from tests.cluster.nodes import ScriptedNode, nodes_at
from tests.cluster.record import Record, Request
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow

REFRESH_S = 0.2
SOON_S = REFRESH_S + 0.5
REFUSED = {"scheduler.job_timeout.pending_timeout_seconds": 0}
"""Nobody waits for a node that is not ready now."""


async def _is_given(client: Client, node: ScriptedNode) -> bool:
    request = await client.ask("is it there?")
    await until(lambda: request.refusals or request.end)
    client.give_up(request)
    return any(job.session_id == client.session_id for job in node.given)


async def _last_given_s(client: Client, node: ScriptedNode, since_s: float) -> float:
    """Ask again and again until the node gets nothing more; when it last did, counted from a point in time."""
    last_s, record = 0.0, client.record
    while record.now_s() - since_s < last_s + 1:
        node.given.clear()
        if await _is_given(client, node):
            last_s = record.now_s() - since_s
    return last_s


async def _first_given_s(client: Client, node: ScriptedNode, since_s: float) -> float:
    while not await _is_given(client, node):
        assert client.record.now_s() - since_s < 10
    return client.record.now_s() - since_s


async def test_a_node_is_used_from_everywhere_soon_after_it_is_ready_and_not_after_it_drains(shared: Shared) -> None:
    with fleet_of(2, shared, REFUSED) as fleet:
        await fleet.is_ready()
        record = Record()
        async with clients_at(record, [fleet[1].url]) as [client], nodes_at(record, ([fleet[0].url], "n1")) as [node]:
            assert await _first_given_s(client, node, node.connected_s[0]) < SOON_S
            drained_s = record.now_s()
            await node.drain()
            assert await _last_given_s(client, node, drained_s) < SOON_S
            assert record.wrongs == []


async def test_a_node_that_leaves_is_not_used_from_elsewhere_and_forgotten_in_time(shared: Shared) -> None:
    stale = {"scheduler.phase2.node_snapshot.remove_stale_after_seconds": 2}
    with fleet_of(2, shared, REFUSED | stale) as fleet:
        await fleet.is_ready()
        record = Record()
        async with clients_at(record, [fleet[1].url]) as [client]:
            async with nodes_at(record, ([fleet[0].url], "n1")) as [node]:
                await _first_given_s(client, node, node.connected_s[0])
            left_s = record.now_s()
            assert shared.call("SISMEMBER", shared.key("v1:nodes:all"), "n1")
            assert await _last_given_s(client, node, left_s) < SOON_S
            await until(lambda: not shared.call("SISMEMBER", shared.key("v1:nodes:all"), "n1"), 20)
            assert shared.call("ZSCORE", shared.key("v1:nodes:last_seen"), "n1") is None


async def test_a_service_that_a_node_loses_is_not_asked_of_it_from_elsewhere(shared: Shared) -> None:
    with fleet_of(2, shared, REFUSED) as fleet:
        await fleet.is_ready()
        record = Record()
        async with clients_at(record, [fleet[1].url]) as [client], nodes_at(record, ([fleet[0].url], "n1")) as [node]:
            await _first_given_s(client, node, node.connected_s[0])
            node.services = ("asr", "nmt")
            lost_s = record.now_s()
            await node.beat()
            assert await _last_given_s(client, node, lost_s) < SOON_S
            assert shared.call("HGET", shared.key("node:{node:n1}:capabilities"), "tts") == b"false"
            request: Request = await client.ask("no voice")
            await until(lambda: request.refusals)
            assert request.refusals == ["NO_AVAILABLE_NODE"]
            client.give_up(request)
            node.services = ("asr", "nmt", "tts")
            back_s = record.now_s()
            await node.beat()
            assert await _first_given_s(client, node, back_s) < SOON_S
            assert not any(isinstance(request.end, Error) for request in record.requests)
