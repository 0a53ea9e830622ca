"""Are waiting and the slots that it takes what queueing theory says?"""

from __future__ import annotations

import heapq
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capacity import Meter, mean_wait_s, plan_capacity, slots_for, waits_at_all, waits_longer
from tests.core.fleet import examples


@pytest.mark.parametrize(
    ("slots", "offered", "share"),
    # One server: the share of time it is busy. The others from published tables of Erlang C.
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.4092), (100, 90.0, 0.2169), (5, 5.0, 1.0), (3, 0.0, 0.0)],
)
def test_the_share_that_waits_is_that_of_the_tables(slots: int, offered: float, share: float) -> None:
    assert waits_at_all(slots, offered) == pytest.approx(share, abs=0.0005)


def test_the_mean_wait_of_one_server_is_that_of_the_textbook() -> None:
    assert mean_wait_s(1, 0.8, 2.0) == pytest.approx(8.0)
    assert mean_wait_s(1, 1.0, 2.0) == inf


def test_a_queue_played_through_waits_as_long_as_the_formula_says() -> None:
    rng, slots, offered, service_s, target_s = Random(4), 8, 6.4, 2.0, 1.0
    free_at, now, waits = [0.0] * slots, 0.0, list[float]()
    for _ in range(300_000):
        now += rng.expovariate(offered / service_s)
        begins = max(now, heapq.heappop(free_at))
        heapq.heappush(free_at, begins + rng.expovariate(1 / service_s))
        waits.append(begins - now)
    assert sum(waits) / len(waits) == pytest.approx(mean_wait_s(slots, offered, service_s), rel=0.15)
    late = sum(wait > target_s for wait in waits) / len(waits)
    assert late == pytest.approx(waits_longer(slots, offered, service_s, target_s), rel=0.15)


@given(
    offered=st.floats(0.01, 500),
    service_s=st.floats(0.05, 30),
    target_s=st.floats(0, 10),
    share=st.sampled_from([0.001, 0.01, 0.2]),
)
@examples(150)
def test_the_slots_wanted_hold_the_waiting_under_the_target_and_one_fewer_does_not(
    offered: float, service_s: float, target_s: float, share: float
) -> None:
    slots = slots_for(offered, service_s, target_s, share)
    assert waits_longer(slots, offered, service_s, target_s) <= share
    assert slots == int(offered) + 1 or waits_longer(slots - 1, offered, service_s, target_s) > share


def test_a_meter_remembers_a_minute_or_two() -> None:
    meter = Meter(0)
    for second in range(120):
        meter.begin(second * 1000, 50)
        meter.end(second * 1000 + 500, 500)
    demand = meter.read(119_500)
    assert demand.jobs_per_s == pytest.approx(1.0, rel=0.02)
    assert (demand.service_s, demand.wait_s) == (0.5, 0.05)
    assert demand.offered == pytest.approx(0.5, rel=0.02)
    assert meter.read(600_000).jobs_per_s == 0
    said = plan_capacity("en-zh", slots=1, busy_slots=1, demand=demand, target_s=0.1)
    assert said.waits_longer > 0.3
    assert said.slots_wanted == slots_for(demand.offered, 0.5, 0.1)
