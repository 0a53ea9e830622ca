"""Are the keys that one step touches on one server of a Redis Cluster, whatever things are called?"""

from __future__ import annotations

import pytest

from dragoman.core.ids import InstanceId, NodeId, SessionId
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.topology import key_slot

NAMES = ["n1", "", "a}b", "{", "}", "{}", "a{b}c", "ключ", "x" * 1000, "a:b:{slots}"]

keys = Keys("lingua")


def are_together(*names: bytes) -> bool:
    return len({key_slot(name) for name in names}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_slots_of_all_nodes_are_together(name: str) -> None:
    node_id, other = NodeId(name), NodeId("another")
    assert are_together(keys.due, keys.slots(node_id), keys.over(node_id), keys.slots(other), keys.over(other))


@pytest.mark.parametrize("name", NAMES)
def test_a_session_and_who_holds_it_are_together(name: str) -> None:
    assert are_together(keys.session(SessionId(name)), keys.session_owner(SessionId(name)))


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_known_of_a_node_is_together(name: str) -> None:
    node_id = NodeId(name)
    known = (keys.snapshot(node_id), keys.node_presence(node_id), keys.capabilities(node_id))
    assert are_together(keys.node_owner(node_id), *known)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_an_instance_leaves_is_together(name: str) -> None:
    dead = InstanceId(name)
    assert are_together(
        keys.inbox(dead), keys.closed(dead), keys.sessions_of(dead), keys.estate(dead), keys.dead_letters(dead)
    )


@pytest.mark.parametrize("name", NAMES)
def test_things_of_different_kinds_never_share_a_key(name: str) -> None:
    node_id, dead, session_id = NodeId(name), InstanceId(name), SessionId(name)
    named = [
        *(keys.instances, keys.nodes, keys.nodes_seen, keys.changes, keys.due, keys.born),
        *(keys.pool_plan, keys.pool_members(name)),
        *(keys.slots(node_id), keys.over(node_id), keys.node_owner(node_id), keys.snapshot(node_id)),
        *(keys.node_presence(node_id), keys.capabilities(node_id), keys.session(session_id)),
        *(keys.session_owner(session_id), keys.presence(dead), keys.estate(dead), keys.sessions_of(dead)),
        *(keys.inbox(dead), keys.closed(dead), keys.dead_letters(dead)),
    ]
    assert len(set(named)) == len(named)
