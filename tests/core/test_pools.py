"""Are the pools those that the nodes make, in whatever order they came, changed and left?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Languages, NmtModel, NmtRule, Service
from dragoman.core.ids import NodeId
from dragoman.core.language import Language
from dragoman.core.node import Node, NodeStatus
from dragoman.core.pools import EVERYBODY, GENERALISTS, Naming, Pool, PoolPolicy, plan_pools, pools_of
from dragoman.core.view import FleetView
from tests.core.fleet import a_health, a_node, examples, languages, pairs, services

_ON = PoolPolicy(is_on=True, requires_semantic=False)


def _any_to_any(*tags: str) -> Languages:
    return Languages(nmt=(NmtModel(languages=languages(*tags), rule=NmtRule.ANY_TO_ANY),))


def _names(node: Node, **policy: Any) -> list[str]:
    return [pool.name for pool in pools_of(node, replace(_ON, **policy))]


# --- which pools a node belongs to


def test_a_set_is_named_by_its_sorted_languages() -> None:
    assert _names(a_node(languages=_any_to_any("zh", "en"))) == ["en-zh"]


def test_a_pair_is_one_direction_and_bidirectional_is_both() -> None:
    node = a_node(languages=_any_to_any("zh", "en"))
    assert _names(node, naming=Naming.PAIR) == ["en-zh", "zh-en"]
    assert _names(node, naming=Naming.BIDIRECTIONAL) == ["en-zh"]


def test_a_language_that_no_direction_uses_is_not_in_the_name() -> None:
    spoken = replace(_any_to_any("zh", "en"), asr=languages("zh", "en", "fr", "de"), tts=languages("en"))
    assert _names(a_node(languages=spoken)) == ["en-zh"]
    assert _names(a_node(languages=spoken), naming=Naming.PAIR) == ["zh-en"]


def test_mixed_pools_are_there_for_each_target_beside_the_others() -> None:
    node = a_node(languages=Languages(pairs=pairs(("zh", "en"), ("de", "en"))))
    assert _names(node, has_mixed=True) == ["de-en-zh", "*-en"]


def test_a_node_without_the_semantic_service_joins_no_pool_when_it_is_required() -> None:
    node = a_node(languages=_any_to_any("zh", "en"))
    assert _names(node, requires_semantic=True) == []
    hears = replace(node, services=services("asr", "nmt", "tts", "semantic"))
    assert _names(hears, requires_semantic=True) == ["en-zh"]


def test_a_node_that_does_not_translate_joins_no_automatic_pool() -> None:
    assert _names(a_node(services=services("asr", "tts"))) == []


@pytest.mark.parametrize("naming", list(Naming))
def test_a_node_that_names_no_languages_is_a_generalist(naming: Naming) -> None:
    assert _names(a_node(), naming=naming) == [GENERALISTS.name]
    assert _names(a_node(languages=Languages(asr=languages("zh"))), naming=naming) == [GENERALISTS.name]


@pytest.mark.parametrize("naming", list(Naming))
def test_a_node_of_ten_thousand_languages_is_a_generalist_at_no_cost(naming: Naming) -> None:
    tags = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}" for a in range(22) for b in range(22) for c in range(22)]
    assert _names(a_node(languages=_any_to_any(*tags[:10_000])), naming=naming) == [GENERALISTS.name]


def test_a_node_of_a_thousand_models_is_a_generalist_at_no_cost() -> None:
    tags = [f"{chr(97 + a)}{chr(97 + b)}" for a in range(8) for b in range(8)]
    models = tuple(NmtModel(languages=languages(*tags), rule=NmtRule.EN_TO_ANY) for _ in range(1000))
    spoken = Languages(
        asr=languages(*tags), nmt=(*models, NmtModel(languages=languages(*tags), rule=NmtRule.ANY_TO_ANY))
    )
    assert _names(a_node(languages=spoken)) == [GENERALISTS.name]


def test_off_there_is_one_pool_of_everybody() -> None:
    assert pools_of(a_node(), PoolPolicy()) == (EVERYBODY,)
    assert plan_pools([a_node("a"), a_node("b")], PoolPolicy()) == (EVERYBODY,)


_MANUAL = (
    Pool(name="speech", services=services("asr", "nmt", "tts"), pairs=pairs(("zh", "en"))),
    Pool(name="large", service_ids=frozenset({"large-v3"})),
    Pool(name="rest"),
)


def test_a_node_belongs_to_every_pool_made_by_hand_that_it_is_fit_for() -> None:
    node = a_node(languages=_any_to_any("zh", "en"), service_ids=(("large-v3", Service.ASR),))
    assert _names(node, manual=_MANUAL) == ["speech", "large", "rest"]
    assert _names(a_node(languages=_any_to_any("de", "en")), manual=_MANUAL) == ["rest"]


def test_the_fewest_nodes_of_a_pool_and_the_most_pools_hold_and_ties_go_by_name() -> None:
    nodes = [a_node(f"{tag}{n}", languages=_any_to_any(tag, "en")) for tag, n in _counted(de=3, fr=2, ja=2, zh=1)]
    plan = [pool.name for pool in plan_pools(nodes, _ON)]
    assert plan == ["de-en", "en-fr", "en-ja", "en-zh"]
    assert [pool.name for pool in plan_pools(nodes, replace(_ON, nodes_min=2))] == ["de-en", "en-fr", "en-ja"]
    assert [pool.name for pool in plan_pools(nodes, replace(_ON, pools_max=2))] == ["de-en", "en-fr"]


def _counted(**numbers: int) -> list[tuple[str, int]]:
    return [(tag, number) for tag, count in numbers.items() for number in range(count)]


# --- the plan kept step by step is the plan made from scratch


@dataclass
class _Fleet:
    policy: PoolPolicy
    view: FleetView = field(init=False)
    online: dict[NodeId, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = FleetView(self.policy)

    def put(self, node: Node, status: NodeStatus) -> None:
        self.view.put(node, a_health(status))
        self.online.pop(node.id, None)
        if status is not NodeStatus.OFFLINE:
            self.online[node.id] = node

    def drop(self, node_id: NodeId) -> None:
        self.view.drop(node_id)
        self.online.pop(node_id, None)

    def plan(self) -> list[str]:
        return sorted(group.pool.name for group in self.view.pools.planned())

    def check(self) -> None:
        pools = plan_pools(self.online.values(), self.policy)
        assert self.plan() == [pool.name for pool in pools]
        for name, group in self.view.pools.groups.items():
            assert group.is_planned is (name in self.plan())
            members = [node for node in self.online.values() if group.pool in pools_of(node, self.policy)]
            assert group.count == len(members)
            free = sum(profile.free_slots for profile in group.profiles.values())
            entries = [entry for node in members if (entry := self.view.get(node.id)) is not None]
            assert free == sum(entry.node.slots - entry.used for entry in entries if entry.standing is None)


_some_languages = st.frozensets(st.sampled_from(["de", "en", "fr", "zh"]), max_size=3).map(
    lambda tags: _any_to_any(*tags)
)
_nodes = st.builds(
    lambda number, spoken, has_semantic, slots: a_node(
        f"n{number}",
        slots,
        languages=spoken,
        services=services("asr", "nmt", "tts", *(["semantic"] if has_semantic else [])),
        service_ids=(("large-v3", Service.ASR),) if number % 2 else (),
    ),
    st.integers(0, 7),
    _some_languages | st.just(Languages()),
    st.booleans(),
    st.integers(1, 3),
)
_steps = st.lists(
    st.tuples(st.just("put"), _nodes, st.sampled_from(NodeStatus))
    | st.tuples(st.just("drop"), _nodes, st.just(NodeStatus.READY))
    | st.tuples(st.just("use"), _nodes, st.just(NodeStatus.READY)),
    max_size=30,
)
_policies = st.builds(
    PoolPolicy,
    is_on=st.just(True),
    naming=st.sampled_from(Naming),
    requires_semantic=st.booleans(),
    nodes_min=st.integers(1, 3),
    pools_max=st.integers(1, 5),
    has_mixed=st.booleans(),
    manual=st.sampled_from([None, None, _MANUAL]),
) | st.just(PoolPolicy())


@given(policy=_policies, steps=_steps)
@examples(300)
def test_the_plan_kept_step_by_step_is_the_plan_made_from_scratch(
    policy: PoolPolicy, steps: list[tuple[str, Node, NodeStatus]]
) -> None:
    fleet = _Fleet(policy)
    for kind, node, status in steps:
        match kind:
            case "put":
                fleet.put(node, status)
            case "drop":
                fleet.drop(node.id)
            case _:
                fleet.view.set_used(node.id, node.slots)
        fleet.check()


@given(policy=_policies, nodes=st.lists(_nodes, max_size=8, unique_by=lambda node: node.id), seed=st.integers(0, 99))
@examples(150)
def test_the_plan_is_the_same_in_whatever_order_the_nodes_came(
    policy: PoolPolicy, nodes: list[Node], seed: int
) -> None:
    one, other = _Fleet(policy), _Fleet(policy)
    for node in nodes:
        one.put(node, NodeStatus.READY)
    shuffled = list(nodes)
    Random(seed).shuffle(shuffled)
    for node in shuffled:
        other.put(node, NodeStatus.OFFLINE)
        other.put(node, NodeStatus.READY)
    assert [group.pool for group in one.view.pools.planned()] == [group.pool for group in other.view.pools.planned()]


def test_a_pool_is_for_a_pair_when_it_has_both_languages() -> None:
    both = Pool(name="en-zh", languages=languages("en", "zh"))
    one_way = Pool(name="zh-en", pairs=pairs(("zh", "en")))
    mixed = Pool(name="*-en", target=Language("en"))
    auto, zh, en, fr = (Language(tag) for tag in ("auto", "zh", "en", "fr"))
    assert [pair for pair in ((zh, en), (en, zh), (auto, en), (fr, en)) if both.is_for(pair)] == [
        (zh, en),
        (en, zh),
        (auto, en),
    ]
    assert [pair for pair in ((zh, en), (en, zh), (auto, en), (fr, en)) if one_way.is_for(pair)] == [
        (zh, en),
        (auto, en),
    ]
    assert [pair for pair in ((zh, en), (auto, en), (auto, zh)) if mixed.is_for(pair)] == [(auto, en)]
