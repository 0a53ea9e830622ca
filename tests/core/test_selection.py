"""Is the node chosen for a job one that can serve it, and the right one of those?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Languages, Need, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.node import Node, NodeStatus
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.selection import RANKING_MAX, Ranking, SelectionPolicy, Strategy, count_refusals, rank_nodes
from dragoman.core.view import FleetView
from tests.core.fleet import a_fleet, a_health, a_node, enter, examples, languages, services
from tests.support.builders import a_need

T = TypeVar("T")

_NOW_MS = 1_000
_LEAST = SelectionPolicy()
_TAKE_TURNS = SelectionPolicy(strategy=Strategy.ROUND_ROBIN)
_AT_RANDOM = SelectionPolicy(strategy=Strategy.RANDOM)
_policies = st.sampled_from([_LEAST, _TAKE_TURNS, _AT_RANDOM])


def _rank(
    view: FleetView,
    policy: SelectionPolicy = _LEAST,
    rng: Random | None = None,
    *,
    need: Need | None = None,
    tried: tuple[str, ...] = (),
    spread_from: str | None = None,
) -> list[str]:
    """The names of the nodes to try; none when there is a refusal."""
    ranking = rank_nodes(
        need or a_need(),
        view,
        policy,
        rng or Random(1),
        now_ms=_NOW_MS,
        tried=[NodeId(name) for name in tried],
        spread_from=None if spread_from is None else NodeId(spread_from),
    )
    return [candidate.node_id for candidate in ranking.candidates] if isinstance(ranking, Ranking) else []


def _nodes(count: int, **fields: object) -> list[Node]:
    return [a_node(f"n{number}", **fields) for number in range(count)]  # type: ignore[arg-type]


# --- any fleet, and who in it can serve, found out node by node


@dataclass
class _Case:
    """A fleet, and what is asked of it."""

    nodes: list[Node]
    statuses: list[NodeStatus]
    used: list[int]
    overloaded: list[bool]
    marks: list[tuple[Service, int] | None]
    need: Need
    tried: frozenset[NodeId]
    view: FleetView = field(default_factory=FleetView)

    def __post_init__(self) -> None:
        for place, node in enumerate(self.nodes):
            entry = self.view.put(node, a_health(self.statuses[place]))
            self.view.set_used(node.id, self.used[place])
            self.view.set_load(entry, 50.0, is_overloaded=self.overloaded[place])
            mark = self.marks[place]
            if mark is not None:
                self.view.mark(entry, *mark)

    def reason(self, place: int) -> Reason | None:
        """Why a node is passed over, by everything that is known of it."""
        node, mark = self.nodes[place], self.marks[place]
        lasting = node.refuses(self.need, is_named=self.need.preferred == node.id)
        if lasting is not None:
            return lasting
        if node.id in self.tried:
            return Reason.ALREADY_TRIED
        if self.statuses[place] is not NodeStatus.READY:
            return Reason.NOT_READY
        if mark is not None and mark[0] in self.need.services and mark[1] > _NOW_MS:
            return Reason.MODEL_UNAVAILABLE
        if self.overloaded[place]:
            return Reason.OVERLOADED
        return Reason.FULL if self.used[place] >= node.slots else None

    def able(self) -> set[NodeId]:
        return {node.id for place, node in enumerate(self.nodes) if self.reason(place) is None}

    def rank(self, policy: SelectionPolicy, seed: int, spread_from: NodeId | None = None) -> Ranking | Refusal:
        return rank_nodes(
            self.need,
            self.view,
            policy,
            Random(seed),
            now_ms=_NOW_MS,
            tried=self.tried,
            spread_from=spread_from,
        )


_NAMES = [NodeId(f"n{number}") for number in range(6)]
_tenants = st.sampled_from([None, None, None, TenantId("acme"), TenantId("other")])


@st.composite
def _cases(draw: st.DrawFn) -> _Case:
    count = draw(st.integers(0, 6))
    nodes = [
        a_node(
            name,
            draw(st.integers(0, 4)),
            services=draw(st.sampled_from([services("asr", "nmt", "tts"), services("nmt"), services()])),
            languages=draw(st.sampled_from([Languages(), Languages(), Languages(asr=languages("zh"))])),
            tenant=draw(_tenants),
            accepts_public=draw(st.sampled_from([True, True, False])),
        )
        for name in _NAMES[:count]
    ]

    def each(strategy: st.SearchStrategy[T]) -> list[T]:
        return draw(st.lists(strategy, min_size=count, max_size=count))

    return _Case(
        nodes=nodes,
        statuses=each(st.sampled_from([NodeStatus.READY] * 4 + [NodeStatus.DEGRADED, NodeStatus.OFFLINE])),
        used=each(st.integers(0, 4)),
        overloaded=each(st.sampled_from([False, False, False, True])),
        marks=each(
            st.sampled_from(
                [None, None, (Service.NMT, _NOW_MS + 1), (Service.NMT, _NOW_MS), (Service.ASR, 2 * _NOW_MS)]
            )
        ),
        need=a_need(
            services=draw(st.sampled_from([("nmt",), ("asr", "nmt")])),
            src=draw(st.sampled_from(["en", "zh", "auto"])),
            tenant=draw(_tenants),
            preferred=draw(st.none() | st.sampled_from(_NAMES)),
        ),
        tried=draw(st.frozensets(st.sampled_from([*_NAMES, NodeId("gone")]), max_size=3)),
    )


@examples(200)
@given(_cases(), _policies, st.integers(0, 9), st.none() | st.sampled_from(_NAMES))
def test_a_ranking_holds_only_nodes_that_can_serve_each_once_and_there_is_one_if_any_can(
    case: _Case, policy: SelectionPolicy, seed: int, spread_from: NodeId | None
) -> None:
    able = case.able()
    answer = case.rank(policy, seed, spread_from)
    if isinstance(answer, Refusal):
        assert able == set()
        return
    named = [candidate.node_id for candidate in answer.candidates]
    assert len(named) == len(set(named)) == min(len(able), RANKING_MAX)
    assert set(named) <= able
    assert {candidate.node_id: candidate.slots for candidate in answer.candidates} == {
        node.id: node.slots for node in case.nodes if node.id in named
    }


@examples(150)
@given(_cases(), _policies, st.none() | st.sampled_from(_NAMES))
def test_the_preferred_node_comes_first_whenever_it_can_serve(
    case: _Case, policy: SelectionPolicy, spread_from: NodeId | None
) -> None:
    answer = case.rank(policy, 1, spread_from)
    if isinstance(answer, Ranking) and case.need.preferred in case.able():
        assert answer.candidates[0].node_id == case.need.preferred


@examples(200)
@given(_cases())
def test_the_refusals_name_the_right_reason_for_every_node(case: _Case) -> None:
    reasons = Counter(case.reason(place) for place in range(len(case.nodes)))
    refused = {reason: count for reason, count in reasons.items() if reason is not None}
    refusal = count_refusals(case.need, case.view, now_ms=_NOW_MS, tried=case.tried)
    assert refusal.counts == refused


@examples(100)
@given(_cases(), _policies)
def test_when_no_node_can_serve_the_refusals_add_up_to_the_number_of_nodes(
    case: _Case, policy: SelectionPolicy
) -> None:
    answer = case.rank(policy, 1)
    if isinstance(answer, Refusal):
        assert sum(answer.counts.values()) == len(case.nodes)


# --- least connections


@examples(100)
@given(st.integers(1, 64), st.data())
def test_of_nodes_with_as_many_slots_those_with_the_fewest_in_use_are_tried_in_that_order(
    slots: int, data: st.DataObject
) -> None:
    used = data.draw(st.lists(st.integers(0, slots - 1), min_size=1, max_size=12))
    loads = data.draw(st.lists(st.sampled_from([0.0, 33.0, 100.0]), min_size=12, max_size=12))
    view = FleetView()
    for number, taken in enumerate(used):
        enter(view, a_node(f"n{number}", slots), used=taken, load=loads[number])
    ranked = _rank(view, rng=Random(data.draw(st.integers(0, 9))))
    assert [used[int(name[1:])] for name in ranked] == sorted(used)[:RANKING_MAX]


@examples(100)
@given(st.lists(st.tuples(st.integers(1, 64), st.integers(0, 63)), min_size=1, max_size=12), st.integers(0, 9))
def test_of_nodes_of_any_size_the_first_is_least_in_use_to_within_a_step(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    view = FleetView()
    parts = {}
    for number, (slots, taken) in enumerate(sizes):
        enter(view, a_node(f"n{number}", slots), used=taken % slots)
        parts[f"n{number}"] = taken % slots / slots
    first = _rank(view, rng=Random(seed))[0]
    assert parts[first] - min(parts.values()) < 1 / 64


def test_the_least_loaded_comes_first_whatever_kind_of_node_it_is() -> None:
    view = FleetView()
    for number, used in enumerate([3, 1, 2]):
        enter(view, a_node(f"n{number}", 4, languages=Languages(asr=languages("en", str(number)))), used=used)
    assert _rank(view) == ["n1", "n2", "n0"]


def test_of_nodes_as_much_in_use_the_machine_with_less_to_do_comes_first() -> None:
    view = FleetView()
    for number, load in enumerate([30.0, 10.0, 20.0]):
        enter(view, a_node(f"n{number}", 4), used=1, load=load)
    assert _rank(view) == ["n1", "n2", "n0"]


# --- fairness


def _chi_square(counts: Counter[str], kinds: int) -> float:
    expected = sum(counts.values()) / kinds
    return sum((count - expected) ** 2 / expected for count in counts.values()) + (kinds - len(counts)) * expected


# 99.9 % of fair dice with nine degrees of freedom stay below.
_FAIR_OF_TEN = 27.9


@pytest.mark.parametrize("policy", [_LEAST, _AT_RANDOM], ids=lambda policy: policy.strategy)
@pytest.mark.parametrize("kinds", [1, 2, 5, 10])
def test_nodes_that_are_equally_free_are_chosen_equally_often(policy: SelectionPolicy, kinds: int) -> None:
    view = a_fleet(
        a_node(f"n{number}", languages=Languages(asr=languages("en", f"x{number % kinds}"))) for number in range(10)
    )
    rng = Random(7)
    firsts = Counter(_rank(view, policy, rng)[0] for _ in range(3_000))
    assert _chi_square(firsts, 10) < _FAIR_OF_TEN


@pytest.mark.parametrize("policy", [_LEAST, _AT_RANDOM], ids=lambda policy: policy.strategy)
def test_the_node_of_a_rare_kind_is_not_chosen_more_often_than_the_many_of_another(policy: SelectionPolicy) -> None:
    view = a_fleet([a_node("n0", languages=Languages(asr=languages("en"))), *_nodes(10)[1:]])
    rng = Random(7)
    firsts = Counter(_rank(view, policy, rng)[0] for _ in range(3_000))
    assert _chi_square(firsts, 10) < _FAIR_OF_TEN


def test_who_is_next_in_use_is_chosen_fairly_when_the_least_used_is_to_be_spread_from() -> None:
    view = a_fleet(_nodes(11, slots=2))
    for number in range(10):
        view.take(NodeId(f"n{number}"), 1)
    rng = Random(7)
    firsts = Counter(_rank(view, rng=rng, spread_from="n10")[0] for _ in range(3_000))
    assert _chi_square(firsts, 10) < _FAIR_OF_TEN


@pytest.mark.parametrize("policy", [_LEAST, _AT_RANDOM, _TAKE_TURNS], ids=lambda policy: policy.strategy)
def test_the_same_seed_makes_the_same_choices(policy: SelectionPolicy) -> None:
    view = a_fleet(_nodes(10))
    one, other = Random(3), Random(3)
    assert [_rank(view, policy, one) for _ in range(20)] == [_rank(view, policy, other) for _ in range(20)]


@pytest.mark.parametrize("kinds", [1, 3])
def test_nodes_that_take_turns_each_have_one_before_any_has_another(kinds: int) -> None:
    view = a_fleet(
        a_node(f"n{number}", 9, languages=Languages(asr=languages("en", f"x{number % kinds}"))) for number in range(7)
    )
    rng = Random(1)
    for turn in range(1, 5):
        chosen = set()
        for _ in range(7):
            name = NodeId(_rank(view, _TAKE_TURNS, rng)[0])
            view.take(name, turn)
            chosen.add(name)
        assert len(chosen) == 7


# --- wishes


@pytest.mark.parametrize("policy", [_LEAST, _AT_RANDOM, _TAKE_TURNS], ids=lambda policy: policy.strategy)
def test_the_node_to_be_spread_from_comes_last_if_it_comes_at_all(policy: SelectionPolicy) -> None:
    for count in range(2, 8):
        view = a_fleet(_nodes(count, slots=2))
        for number in range(1, count):
            view.take(NodeId(f"n{number}"), 1)
        for seed in range(20):
            ranked = _rank(view, policy, Random(seed), spread_from="n0")
            assert len(ranked) == min(count, RANKING_MAX)
            assert "n0" not in ranked[:-1]


def test_the_node_to_be_spread_from_serves_when_no_other_can() -> None:
    view = a_fleet(_nodes(2))
    view.take(NodeId("n1"), 1)
    assert _rank(view, spread_from="n0") == ["n0"]


def test_a_preferred_node_comes_first_although_it_is_busier_and_to_be_spread_from() -> None:
    view = a_fleet(_nodes(9, slots=4))
    view.take(NodeId("n5"), 3)
    ranked = _rank(view, need=a_need(preferred="n5"), spread_from="n5")
    assert ranked[0] == "n5"
    assert len(ranked) == RANKING_MAX


@pytest.mark.parametrize(("tried", "used"), [(("n5",), 0), ((), 1)])
def test_others_serve_when_the_preferred_node_cannot(tried: tuple[str, ...], used: int) -> None:
    view = a_fleet(_nodes(9))
    view.set_used(NodeId("n5"), used)
    ranked = _rank(view, need=a_need(preferred="n5"), tried=tried)
    assert len(ranked) == RANKING_MAX
    assert "n5" not in ranked


def test_a_private_node_serves_only_who_names_it() -> None:
    view = a_fleet(_nodes(2, accepts_public=False))
    assert _rank(view) == []
    assert _rank(view, need=a_need(preferred="n1")) == ["n1"]


# --- waiting


@pytest.mark.parametrize(
    ("status", "used", "is_worth_waiting"),
    [(NodeStatus.READY, 1, True), (NodeStatus.DEGRADED, 0, True), (NodeStatus.OFFLINE, 0, True)],
)
def test_waiting_is_worth_it_for_a_node_that_is_busy_or_not_ready(
    status: NodeStatus, used: int, is_worth_waiting: bool
) -> None:
    view = FleetView()
    view.set_health(enter(view, a_node(), used=used), a_health(status))
    answer = rank_nodes(a_need(), view, _LEAST, Random(1), now_ms=_NOW_MS)
    assert isinstance(answer, Refusal)
    assert answer.is_worth_waiting == is_worth_waiting


def test_waiting_is_not_worth_it_when_every_node_that_could_has_failed_at_the_job() -> None:
    view = a_fleet([a_node("n1"), a_node("n2", services=services())])
    answer = rank_nodes(a_need(), view, _LEAST, Random(1), now_ms=_NOW_MS, tried=[NodeId("n1")])
    assert isinstance(answer, Refusal)
    assert answer.counts == {Reason.ALREADY_TRIED: 1, Reason.SERVICE_MISSING: 1}
    assert not answer.is_worth_waiting


def test_an_empty_fleet_refuses_with_nothing_to_wait_for() -> None:
    answer = rank_nodes(a_need(), FleetView(), _LEAST, Random(1), now_ms=_NOW_MS)
    assert isinstance(answer, Refusal)
    assert answer.counts == {}
    assert not answer.is_worth_waiting


def test_a_node_in_another_shape_is_judged_by_that_shape() -> None:
    view = a_fleet([a_node()])
    assert _rank(view) == ["n1"]
    view.put(replace(a_node(), services=services("asr")), a_health())
    assert _rank(view) == []
    view.put(a_node(), a_health())
    assert _rank(view) == ["n1"]
    view.drop(NodeId("n1"))
    assert _rank(view) == []
