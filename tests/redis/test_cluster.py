"""What do callers of a Redis Cluster get, while its slots and its masters change?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from dragoman.embedded import EmbeddedCluster, EmbeddedValkey, single_valkey, valkey_cluster
from dragoman.store.interface import StoreDownError
from dragoman.store.redis.topology import key_slot
from tests.redis.opened import ADD, COPY, WITHIN_S, not_open, opened, outcome, until, until_it_answers

pytestmark = pytest.mark.slow

KEYS = [b"{%d}key" % number for number in range(40)]


@pytest.fixture(scope="module")
def newcomer() -> Iterator[EmbeddedValkey]:
    """A server that is in no cluster, and joins one in the course of these tests."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
    # When its only slot is taken back it would become a replica on its own.
    options += ["--cluster-allow-replica-migration", "no"]
    with single_valkey(options=options) as newcomer:
        yield newcomer


# After the newcomer: the two seconds that a master waits before it serves then pass for both together.
@pytest.fixture(scope="module")
def cluster(newcomer: EmbeddedValkey) -> Iterator[EmbeddedCluster]:
    """Three masters with a replica each: whoever changes something puts it right again."""
    assert newcomer.call("PING") == b"PONG"
    with valkey_cluster(replicas=1, options=("--cluster-node-timeout", "1000")) as cluster:
        yield cluster


class Migration:
    """The slot of a key on its way from its master to another server."""

    def __init__(self, cluster: EmbeddedCluster, key: bytes, target: EmbeddedValkey | None = None) -> None:
        self.slot = key_slot(key)
        self.source = _master_of(cluster, self.slot)
        self.target = target or next(master for master in cluster.masters if master is not self.source)
        self.everybody = {*cluster.masters, self.target}
        self.has_ended = False

    def begin(self) -> None:
        self.target.call("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.call("CLUSTER", "MYID"))
        self.source.call("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.call("CLUSTER", "MYID"))

    def carry(self, keys: Sequence[bytes]) -> None:
        self.source.call("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)

    def end(self) -> None:
        for server in (self.target, self.source):
            server.call("CLUSTER", "SETSLOT", self.slot, "NODE", self.target.call("CLUSTER", "MYID"))
        self.has_ended = True

    def turn_back(self) -> None:
        """As it was, without the keys."""
        for server in (self.source, self.target):
            server.call("FLUSHALL")
        if not self.has_ended:
            for server in (self.source, self.target):
                server.call("CLUSTER", "SETSLOT", self.slot, "STABLE")
            return
        self.source, self.target = self.target, self.source
        self.begin()
        self.end()
        deadline_s = time.monotonic() + WITHIN_S
        while {_owner_port(server, self.slot) for server in self.everybody} != {self.target.port}:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


@contextmanager
def migration(cluster: EmbeddedCluster, key: bytes, target: EmbeddedValkey | None = None) -> Iterator[Migration]:
    """A migration that has begun."""
    moving = Migration(cluster, key, target)
    moving.begin()
    try:
        yield moving
    finally:
        moving.turn_back()


def _master_of(cluster: EmbeddedCluster, slot: int) -> EmbeddedValkey:
    port = _owner_port(cluster.masters[0], slot)
    return next(server for server in cluster.servers if server.port == port)


def _owner_port(asked: EmbeddedValkey, slot: int) -> int:
    """Whose the slot is as that server sees it; 0: nobody's."""
    ranges = asked.call("CLUSTER", "SLOTS")
    return next((int(master[1]) for first, last, master, *_ in ranges if first <= slot <= last), 0)


async def test_a_cluster_without_a_slot_that_is_served_is_refused(newcomer: EmbeddedValkey) -> None:
    servers = not_open([newcomer.url], connect_timeout_ms=200)
    with pytest.raises(StoreDownError, match="knows a master of any slot"):
        await servers.open()


async def test_keys_are_found_at_their_servers(cluster: EmbeddedCluster) -> None:
    async with opened(cluster.urls) as servers:
        await asyncio.gather(*[servers.call(key, "SET", key, 1) for key in KEYS])
        for key in KEYS:
            servers.tell_script(ADD, [key], [1])
            servers.tell(key, "INCR", key)

        assert await asyncio.gather(*[servers.run(ADD, [key], [1]) for key in KEYS]) == [4] * len(KEYS)
        assert sum(await servers.everywhere("DBSIZE")) == len(KEYS)
        assert len(await servers.everywhere("FLUSHALL")) == 3
        assert servers.failures == {}


async def test_slots_are_counted_as_the_server_does(cluster: EmbeddedCluster) -> None:
    keys = [b"a", b"{a}b", b"a{b}{c}", b"{}a", b"a{}", b"{{a}}", b"}a{b", b"a{b}c}", b"\xff{\x00}", b""]

    assert [key_slot(key) for key in keys] == [cluster.masters[0].call("CLUSTER", "KEYSLOT", key) for key in keys]


async def test_the_rest_of_a_cluster_is_found_from_one_seed_that_answers(cluster: EmbeddedCluster) -> None:
    async with opened(["redis://127.0.0.1:1", cluster.urls[1]]) as servers:
        assert servers.is_up
        assert len(await servers.everywhere("PING")) == 3


@pytest.mark.parametrize("turns", range(8))
async def test_connections_can_be_closed_at_any_moment(cluster: EmbeddedCluster, turns: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        async with opened(cluster.urls):
            for _ in range(turns):
                await asyncio.sleep(0)


async def test_a_slot_that_moved_is_followed_and_remembered(cluster: EmbeddedCluster) -> None:
    key = b"{moved}key"
    async with opened(cluster.urls) as servers:
        await servers.call(key, "SET", key, 1)
        with migration(cluster, key) as moving:
            moving.carry([key])
            moving.end()

            assert await servers.run(ADD, [key], [1]) == 2
            assert await servers.run(ADD, [key], [1]) == 3
            assert servers.failures == {"MOVED": 1}
            assert moving.target.call("GET", key) == b"3"


async def test_a_slot_that_moved_to_a_server_unknown_before_is_followed(
    cluster: EmbeddedCluster, newcomer: EmbeddedValkey
) -> None:
    key = b"{joined}key"
    async with opened(cluster.urls) as servers:
        newcomer.call("CLUSTER", "MEET", "127.0.0.1", cluster.masters[0].port)
        await until(lambda: all(b":%d@" % newcomer.port in m.call("CLUSTER", "NODES") for m in cluster.masters))
        await until(lambda: b"cluster_state:ok" in newcomer.call("CLUSTER", "INFO"))
        with migration(cluster, key, newcomer) as moving:
            asking = [servers.run(ADD, [key], [1]) for _ in range(5)]
            assert sorted(await asyncio.gather(*asking)) == [1, 2, 3, 4, 5]
            assert servers.failures["ASK"] == 5

            moving.end()
            assert await servers.run(ADD, [key], [1]) == 6
            assert newcomer.call("GET", key) == b"6"


async def test_a_key_of_a_slot_on_its_way_is_asked_for_at_the_other_end(cluster: EmbeddedCluster) -> None:
    stays, moves = b"{asked}stays", b"{asked}moves"
    async with opened(cluster.urls) as servers:
        await servers.call(stays, "SET", stays, 10)
        with migration(cluster, stays) as moving:
            # Neither knows the script: so the second of them is not reached by one step alone.
            await servers.everywhere("SCRIPT", "FLUSH")
            assert await servers.run(ADD, [moves], [1]) == 1
            assert await servers.run(ADD, [stays], [1]) == 11
            assert servers.failures["ASK"] > 0

            moving.carry([stays])
            moving.end()
            assert await servers.call(moves, "MGET", moves, stays) == [b"1", b"11"]


async def test_keys_at_both_ends_are_waited_for(cluster: EmbeddedCluster) -> None:
    first, second = b"{both}first", b"{both}second"
    async with opened(cluster.urls) as servers:
        await servers.call(first, "MSET", first, 1, second, 2)
        with migration(cluster, first) as moving:
            moving.carry([first])
            asked = servers.run(COPY, [first, second], [])
            await asyncio.sleep(0.005)
            moving.carry([second])

            assert await asked == [b"1", b"2"]


async def test_keys_that_stay_at_both_ends_are_given_up(cluster: EmbeddedCluster) -> None:
    first, second = b"{apart}first", b"{apart}second"
    async with opened(cluster.urls) as servers:
        await servers.call(first, "MSET", first, 1, second, 2)
        with migration(cluster, first) as moving:
            moving.carry([first])
            error = await outcome(servers.run(COPY, [first, second], []))

            assert isinstance(error, StoreDownError)
            assert "TRYAGAIN" in str(error)


async def test_a_cluster_that_says_it_is_down_is_down_until_it_says_otherwise(cluster: EmbeddedCluster) -> None:
    key = b"{down}key"
    master = _master_of(cluster, key_slot(key))
    async with opened(cluster.urls) as servers:
        ups: list[bool] = []
        servers.on_up(lambda: ups.append(servers.is_up))
        master.call("CLUSTER", "DELSLOTS", key_slot(key))
        try:
            error = await outcome(servers.call(key, "GET", key))
            assert isinstance(error, StoreDownError)
            assert "CLUSTERDOWN" in str(error)
            assert not servers.is_up
        finally:
            master.call("CLUSTER", "ADDSLOTS", key_slot(key))

        await until(lambda: servers.is_up)
        assert await servers.call(key, "GET", key) is None
        assert ups == [True]


async def test_a_lost_master_is_missed_at_once_and_the_others_serve_on(cluster: EmbeddedCluster) -> None:
    lost = _master_of(cluster, key_slot(KEYS[0]))
    here = next(key for key in KEYS if _master_of(cluster, key_slot(key)) is not lost)
    async with opened(cluster.urls) as servers:
        ups: list[bool] = []
        servers.on_up(lambda: ups.append(servers.is_up))
        lost.kill()
        await until(lambda: not servers.is_up)
        began_s = time.monotonic()
        assert isinstance(await outcome(servers.call(KEYS[0], "GET", KEYS[0])), StoreDownError)
        with pytest.raises(StoreDownError):
            await servers.everywhere("PING")
        assert await servers.call(here, "GET", here) is None
        assert time.monotonic() - began_s < 0.1

        lost.restart()
        await until(lambda: servers.is_up)
        assert await servers.call(KEYS[0], "GET", KEYS[0]) is None
        assert ups == [True]


async def test_when_a_replica_becomes_master_service_is_whole_again_by_itself(cluster: EmbeddedCluster) -> None:
    lost = _master_of(cluster, key_slot(KEYS[0]))
    async with opened(cluster.urls[:3]) as servers:
        ups: list[bool] = []
        servers.on_up(lambda: ups.append(servers.is_up))
        lost.kill()
        await until(lambda: not servers.is_up)
        await until(lambda: servers.is_up)
        assert await asyncio.gather(*[servers.run(ADD, [key], [1]) for key in KEYS]) == [1] * len(KEYS)
        assert len(await servers.everywhere("PING")) == 3
        assert ups == [True]

        lost.restart()
        await until(lambda: b"master_link_status:up" in lost.call("INFO", "replication"))
        assert await asyncio.gather(*[servers.run(ADD, [key], [1]) for key in KEYS]) == [2] * len(KEYS)


async def test_a_master_that_stands_still_is_left_for_its_replica(cluster: EmbeddedCluster) -> None:
    key = b"{0}still"
    still = _master_of(cluster, key_slot(key))
    async with opened(cluster.urls, command_timeout_ms=200) as servers:
        still.pause()
        assert isinstance(await outcome(servers.call(key, "GET", key)), StoreDownError)
        await until_it_answers(servers, key)
        await until(lambda: servers.is_up)

        still.resume()
        await until(lambda: b"role:slave" in still.call("INFO", "replication"))
        assert await servers.run(ADD, [key], [1]) == 1


async def test_a_cluster_that_is_none_is_refused_with_advice(valkey: EmbeddedValkey) -> None:
    with pytest.raises(StoreDownError, match='set mode = "single"'):
        await not_open([valkey.url]).open()


async def test_seeds_that_do_not_answer_are_named() -> None:
    with pytest.raises(StoreDownError, match=r"127\.0\.0\.1:1"):
        await not_open(["redis://127.0.0.1:1"], connect_timeout_ms=200).open()
