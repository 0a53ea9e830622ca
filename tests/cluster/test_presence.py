"""How do instances know of each other, and what keeps two from having one name?"""

from __future__ import annotations

import json

import pytest

from tests.cluster.fleet import PRESENCE_TTL_S, fleet_of, until
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)


@both
async def test_instances_announce_themselves_for_a_while_and_know_each_other(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        for instance in fleet.instances:
            key = shared.key(f"schedulers:presence:{instance.name}")
            presence = json.loads(shared.call("GET", key))
            assert presence["id"] == instance.name
            assert presence["address"].endswith(f":{instance.port}")
            assert presence["version"]
            assert 0 < shared.call("PTTL", key) <= PRESENCE_TTL_S * 1000
        fleet[0].drain()
        assert await fleet[0].ended() == 0
        assert shared.call("EXISTS", shared.key("schedulers:presence:a")) == 0
        await fleet[1].says("instance is gone")


@both
async def test_a_second_instance_of_the_same_id_says_so_in_one_line_and_does_not_start(shared: Shared) -> None:
    with fleet_of(1, shared) as fleet:
        await fleet.is_ready()
        second = fleet.start("a")
        second.expects_faults = True
        assert await second.ended(PRESENCE_TTL_S + 8) == 1
        last = second.said().splitlines()[-1]
        assert last.startswith("another instance with instance_id 'a' is alive"), second
        assert "Traceback" not in second.said()
        assert fleet[0].exit_code is None


@both
async def test_an_instance_that_was_killed_starts_again_with_its_id_as_soon_as_it_counts_as_dead(
    shared: Shared,
) -> None:
    with fleet_of(1, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        fleet[0].kill()
        killed_s = record.now_s()
        await fleet[0].restart()
        print(f"started again after {record.now_s() - killed_s:.1f} s")
        assert record.now_s() - killed_s < PRESENCE_TTL_S + 2
        await until(lambda: shared.call("EXISTS", shared.key("schedulers:presence:a")))
