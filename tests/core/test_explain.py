"""Does an explanation say what the choice would do, and why?"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from dragoman.core.capability import Languages, NmtModel, NmtRule
from dragoman.core.explain import Explanation, Place, Why, explain, list_pools
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.pools import OUTSIDE, Naming, Pool, PoolPolicy
from dragoman.core.refusal import Reason
from dragoman.core.selection import Affinity, Fallback, SelectionPolicy
from dragoman.core.view import FleetView
from tests.core.fleet import a_node, enter, languages, pairs, services
from tests.support.builders import a_need

_ON = PoolPolicy(is_on=True, requires_semantic=False)
_EN_ZH = a_need(src="en", tgt="zh")


def _translates(*tags: str) -> Languages:
    return Languages(nmt=(NmtModel(languages=languages(*tags), rule=NmtRule.ANY_TO_ANY),))


def _explain(view: FleetView, **said: Any) -> Explanation:
    policy = SelectionPolicy(sample_size=said.pop("size", 20))
    return explain(said.pop("need", _EN_ZH), view, policy, Random(1), now_ms=0, **said)


def _fleet(policy: PoolPolicy, count: int, *tags: str) -> FleetView:
    view = FleetView(policy)
    for number in range(count):
        enter(view, a_node(f"n{number}", 8, languages=_translates(*tags)), used=number % 8)
    return view


def test_it_tells_the_sample_and_what_became_of_each_node() -> None:
    said = _explain(_fleet(_ON, 100, "en", "zh"), size=10)
    assert (said.chosen, said.selected, said.why, said.fallback) == ("en-zh", "en-zh", Why.ONLY, None)
    assert len(said.sampled) == 10
    verdicts = [report.verdict for report in said.sampled]
    assert verdicts == [Place.FIRST, *[Place.IN_RESERVE] * 3, *[Place.BUSIER] * 6]
    assert tuple(report.node_id for report in said.sampled[:4]) == said.ranking
    assert max(report.used for report in said.sampled[:4]) <= min(report.used for report in said.sampled[4:])


def test_it_tells_why_the_pool_was_chosen() -> None:
    view = _fleet(_ON, 3, "en", "zh")
    enter(view, a_node("other", 8, languages=_translates("en", "ja", "zh")))
    assert _explain(view).why is Why.FREE_SLOTS
    assert _explain(view, affinity=Affinity("s1")).why is Why.AFFINITY
    assert {report.name for report in _explain(view).eligible} == {"en-zh", "en-ja-zh"}
    by_hand = replace(_ON, manual=(Pool(name="vip"), Pool(name="rest", services=services("asr"))))
    view = _fleet(replace(by_hand, overrides={TenantId("acme"): "vip"}), 3, "en", "zh")
    said = _explain(view, need=a_need(src="en", tgt="zh", tenant="acme"))
    assert (said.why, said.chosen) == (Why.TENANT, "vip")


def test_it_tells_of_nodes_that_failed_at_the_job_or_are_full() -> None:
    view = _fleet(_ON, 30, "en", "zh")
    tried = [NodeId(f"n{number}") for number in range(0, 30, 8)]
    said = _explain(view, tried=tried, size=20)
    assert Reason.ALREADY_TRIED in {report.verdict for report in said.sampled}
    assert said.passed_over == {Reason.ALREADY_TRIED: 4}
    for number in range(30):
        view.set_used(NodeId(f"n{number}"), 8)
    said = _explain(view)
    assert (said.selected, said.ranking, said.passed_over) == (None, (), {Reason.FULL: 30})


def test_without_a_pool_for_it_a_job_goes_outside() -> None:
    view = _fleet(replace(_ON, nodes_min=5), 3, "en", "zh")
    said = _explain(view)
    assert (said.eligible, said.chosen, said.why) == ((), None, Why.NONE)
    assert (said.selected, said.fallback) == (OUTSIDE, Fallback.NO_POOL)


def test_the_pools_are_listed_with_their_slots_and_who_is_in_none() -> None:
    view = FleetView(replace(_ON, naming=Naming.PAIR))
    enter(view, a_node("a", 4, languages=Languages(pairs=pairs(("en", "zh")))), used=1)
    enter(view, a_node("b", 4, languages=Languages(pairs=pairs(("en", "zh")))), used=4)
    enter(view, a_node("c", 2, services=services("asr")))
    found = [
        (pool.name, pool.nodes, pool.ready, pool.slots, pool.busy_slots, pool.free_slots) for pool in list_pools(view)
    ]
    assert found == [("en-zh", 2, 2, 8, 5, 3), (OUTSIDE, 1, 1, 2, 0, 2)]
    assert list_pools(view)[0].languages == ("en-zh",)
    (empty,) = list_pools(FleetView(replace(_ON, manual=(Pool(name="speech"),))))
    assert (empty.name, empty.nodes) == ("speech", 0)
