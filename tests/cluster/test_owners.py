"""Who has the connection of a node or a session? One instance at a time, and the others know which."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.clients import clients_at, introduce
from tests.cluster.fleet import OWNER_TTL_S, fleet_of, kept_busy, until
from tests.cluster.nodes import ScriptedNode, nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)


@both
async def test_who_holds_a_node_and_a_session_is_kept_renewed_and_cleared(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with nodes_at(record, ([fleet[0].url], "n1")), clients_at(record, [fleet[1].url]) as [client]:
            node_key = shared.key("nodes:owner:{node:n1}")
            session_key = shared.key(f"sessions:owner:{{session:{client.session_id}}}")
            assert (shared.call("GET", node_key), shared.call("GET", session_key)) == (b"a", b"b")
            assert 0 < shared.call("PTTL", node_key) <= OWNER_TTL_S * 1000
            assert 0 < shared.call("PTTL", session_key) <= OWNER_TTL_S * 1000
            await asyncio.sleep(OWNER_TTL_S + 1)
            assert (shared.call("GET", node_key), shared.call("GET", session_key)) == (b"a", b"b")
        await until(lambda: not shared.call("EXISTS", node_key))
        await until(lambda: shared.call("PTTL", session_key) <= 20_000)


@both
async def test_a_node_that_moved_is_not_cleared_by_where_it_was(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record, (a, b) = Record(), fleet.urls
        async with nodes_at(record, ([a, b, a, b, a, b, a, b], "n1")) as [node], clients_at(record, [a]) as [client]:
            for at in range(7):
                node.drop()
                await until(lambda: len(node.connected_s) == at + 2)  # noqa: B023
            await until(lambda: shared.call("GET", shared.key("nodes:owner:{node:n1}")) == b"b")
            await introduce(fleet, [node])
            await client.asks("hello")
            assert shared.call("GET", shared.key("nodes:owner:{node:n1}")) == b"b"
            assert b'"ready"' in shared.call("GET", shared.key("v1:nodes:snapshot:{node:n1}"))
            record.assert_right()


async def test_a_second_node_of_the_same_id_is_refused_while_the_first_lives(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with nodes_at(record, ([fleet[0].url], "n1")) as [first]:
            second = ScriptedNode(record, [fleet[1].url], "n1")
            async with kept_busy(second.run()):
                await until(lambda: second.errors)
                assert second.errors[0].code == "NODE_ID_CONFLICT"
                assert first.is_connected.is_set()
                assert not second.is_connected.is_set()


async def test_a_node_whose_old_connection_is_dead_takes_its_place_on_another_instance_at_once(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        first = ScriptedNode(record, [fleet[0].url], "n1", is_deaf=True)
        second = ScriptedNode(record, [fleet[1].url], "n1")
        async with kept_busy(first.run()):
            await until(first.is_connected.is_set)
            began_s = record.now_s()
            async with kept_busy(second.run()):
                await until(second.is_connected.is_set, 6, lambda: f"it is not let in: {second.errors}")
                print(f"in its place after {record.now_s() - began_s:.1f} s")
                assert second.errors == []
                await until(lambda: shared.call("GET", shared.key("nodes:owner:{node:n1}")) == b"b")
                await introduce(fleet, [second])
