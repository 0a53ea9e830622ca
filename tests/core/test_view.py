"""Does the view of the fleet stay true to what it was told, in any order?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dragoman.core.capability import Languages, Need, Service
from dragoman.core.ids import NodeId
from dragoman.core.node import Node, NodeStatus
from dragoman.core.profiles import LEVELS, LoadIndex, NodeEntry
from dragoman.core.refusal import Reason
from dragoman.core.view import FleetView
from tests.core.fleet import a_fleet, a_health, a_node, enter, examples, languages, services
from tests.support.builders import a_need

_NEEDS = (a_need(), a_need(services=("nmt",)), a_need(src="zh"), a_need(services=("asr",), tenant="acme"))
_KINDS: tuple[dict[str, object], ...] = (
    {},
    {"services": services("nmt")},
    {"languages": Languages(asr=languages("zh"))},
    {"accepts_public": False},
)


def _level(entry: NodeEntry) -> int:
    return entry.used * LEVELS // entry.node.slots


def _free(view: FleetView) -> list[NodeEntry]:
    return [entry for profile in view.profiles.values() for entry in profile.free.ascending(Random(1))]


def _index(view: FleetView) -> LoadIndex:
    (profile,) = view.profiles.values()
    return profile.free


# --- the view, told anything in any order, next to a model that is a plain table


@dataclass
class _Row:
    node: Node
    status: NodeStatus
    used: int = 0
    is_overloaded: bool = False
    load: float = 0.0

    def standing(self) -> Reason | None:
        if self.status is not NodeStatus.READY:
            return Reason.NOT_READY
        if self.is_overloaded:
            return Reason.OVERLOADED
        return Reason.FULL if self.used >= self.node.slots else None


_names = st.sampled_from([NodeId(f"n{number}") for number in range(6)])
_statuses = st.sampled_from([*[NodeStatus.READY] * 4, *NodeStatus])
_numbers = st.integers(0, 4) | st.sampled_from([63, 64, 65, 200])


class ViewMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.view = FleetView()
        self.rows: dict[NodeId, _Row] = {}
        self.rng = Random(1)

    @rule(name=_names, slots=_numbers, kind=st.sampled_from(_KINDS), status=_statuses)
    def put(self, name: NodeId, slots: int, kind: dict[str, object], status: NodeStatus) -> None:
        node = replace(a_node(name, slots), **kind)  # type: ignore[arg-type]
        self.view.put(node, a_health(status))
        row = self.rows.setdefault(name, _Row(node, status))
        row.node, row.status = node, status

    @rule(name=_names)
    def drop(self, name: NodeId) -> None:
        self.view.drop(name)
        self.rows.pop(name, None)

    @rule(name=_names, used=_numbers)
    def take(self, name: NodeId, used: int) -> None:
        self.view.take(name, used)
        if name in self.rows:
            self.rows[name].used = used

    @rule(name=_names)
    def take_one_more(self, name: NodeId) -> None:
        if name in self.rows:
            self.take(name, self.rows[name].used + 1)

    @rule(name=_names)
    def give_back(self, name: NodeId) -> None:
        self.view.give_back(name)
        if name in self.rows:
            self.rows[name].used = max(self.rows[name].used - 1, 0)

    @rule(name=_names, used=_numbers | st.just(-1))
    def set_used(self, name: NodeId, used: int) -> None:
        self.view.set_used(name, used)
        if name in self.rows:
            self.rows[name].used = max(used, 0)

    @rule(name=_names, status=_statuses)
    def set_health(self, name: NodeId, status: NodeStatus) -> None:
        entry = self.view.get(name)
        if entry is not None:
            self.view.set_health(entry, a_health(status))
            self.rows[name].status = status

    @rule(name=_names, load=st.floats(0, 100), is_overloaded=st.booleans())
    def set_load(self, name: NodeId, load: float, is_overloaded: bool) -> None:
        entry = self.view.get(name)
        if entry is not None:
            self.view.set_load(entry, load, is_overloaded=is_overloaded)
            self.rows[name].load, self.rows[name].is_overloaded = load, is_overloaded

    @invariant()
    def it_knows_the_nodes_that_were_put_and_not_dropped(self) -> None:
        assert {entry.node.id: entry.node for entry in self.view} == {name: row.node for name, row in self.rows.items()}
        assert len(self.view) == len(self.rows)
        for name, row in self.rows.items():
            entry = self.view.get(name)
            assert entry is not None
            assert (entry.used, entry.candidate.slots) == (row.used, row.node.slots)

    @invariant()
    def the_free_nodes_are_those_that_can_take_a_job_each_once(self) -> None:
        able = sorted(name for name, row in self.rows.items() if row.standing() is None)
        assert sorted(entry.node.id for entry in _free(self.view)) == able
        assert sum(profile.free.count for profile in self.view.profiles.values()) == len(able)

    @invariant()
    def free_nodes_come_in_order_of_their_level(self) -> None:
        for profile in self.view.profiles.values():
            levels = [_level(entry) for entry in profile.free.ascending(self.rng)]
            assert levels == sorted(levels)

    @invariant()
    def the_lowest_are_the_first_of_all_in_order_of_level(self) -> None:
        for profile in self.view.profiles.values():
            levels = [_level(entry) for entry in profile.free.ascending(self.rng)]
            for limit in (1, 2, 5):
                lowest = profile.free.lowest(limit, self.rng)
                assert [_level(entry) for entry in lowest] == levels[:limit]
                assert len({entry.node.id for entry in lowest}) == len(lowest)

    @invariant()
    def who_serves_a_need_is_who_does_not_refuse_it_for_ever(self) -> None:
        for need in _NEEDS:
            served = {entry.node.id for entry in self.view if entry.profile in self.view.serving(need)}
            assert served == {name for name, row in self.rows.items() if row.node.refuses(need, is_named=False) is None}

    @invariant()
    def each_node_refuses_a_need_for_the_right_reason(self) -> None:
        for need in _NEEDS:
            for entry in self.view:
                row = self.rows[entry.node.id]
                lasting = row.node.refuses(need, is_named=False)
                assert entry.refuses(need, now_ms=0) == (row.standing() if lasting is None else lasting)

    @invariant()
    def every_kind_of_node_counts_its_own(self) -> None:
        assert sum(len(profile.nodes) for profile in self.view.profiles.values()) == len(self.rows)
        standings: Counter[Reason | None] = Counter()
        for profile in self.view.profiles.values():
            standings.update(profile.standings)
        assert +standings == Counter(row.standing() for row in self.rows.values())


TestViewMachine = ViewMachine.TestCase
TestViewMachine.settings = examples(60)


# --- order by load


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 10, 33, 63, 64])
def test_nodes_with_as_many_slots_are_told_apart_by_every_slot_in_use(slots: int) -> None:
    view = FleetView()
    for used in Random(1).sample(range(slots), slots):
        enter(view, a_node(f"n{used}", slots), used=used)
    assert [entry.used for entry in _free(view)] == list(range(slots))


def test_the_rank_goes_by_the_slots_in_use_and_then_by_the_machine() -> None:
    view = FleetView()
    for used in range(64):
        for load in (0.0, 50.0, 100.0):
            enter(view, a_node(f"{used}/{load}", 64), used=used, load=load)
    ranked = sorted(view, key=lambda entry: entry.rank)
    assert [(entry.used, entry.load) for entry in ranked] == sorted((entry.used, entry.load) for entry in view)


def test_each_node_of_a_level_is_found_first_as_often_as_the_others() -> None:
    index, rng = _index(a_fleet(a_node(f"n{number}") for number in range(10))), Random(1)
    firsts = Counter(index.lowest(3, rng)[0].node.id for _ in range(5_000))
    assert len(firsts) == 10
    assert all(400 < count < 600 for count in firsts.values())


def test_the_level_after_the_lowest_is_entered_at_random_too() -> None:
    view = a_fleet(a_node(f"n{number}", 2) for number in range(11))
    for number in range(1, 11):
        view.take(NodeId(f"n{number}"), 1)
    index, rng = _index(view), Random(1)
    seconds = Counter(index.lowest(3, rng)[1].node.id for _ in range(5_000))
    assert len(seconds) == 10
    assert all(400 < count < 600 for count in seconds.values())


def test_without_free_nodes_nothing_is_found() -> None:
    view = a_fleet([a_node(slots=0)])
    assert _free(view) == []
    assert _index(view).lowest(5, Random(1)) == []


# --- what a node says it cannot do after all


def _marked(what: Service | Need, until_ms: int) -> tuple[FleetView, NodeEntry]:
    view = a_fleet([a_node()])
    entry = view.get(NodeId("n1"))
    assert entry is not None
    view.mark(entry, what, until_ms)
    return view, entry


def test_a_mark_on_a_service_holds_for_every_need_of_it_until_its_time() -> None:
    _, entry = _marked(Service.TTS, until_ms=100)
    for need in (a_need(), a_need(services=("tts",), src="zh")):
        assert entry.refuses(need, 99) is Reason.MODEL_UNAVAILABLE
    assert entry.refuses(a_need(services=("asr",)), 99) is None
    assert entry.refuses(a_need(), 100) is None


def test_a_mark_on_a_need_holds_for_that_need_alone() -> None:
    _, entry = _marked(a_need(), until_ms=100)
    assert entry.refuses(a_need(), 99) is Reason.MODEL_UNAVAILABLE
    assert entry.refuses(a_need(src="zh"), 99) is None


def test_marks_are_forgotten_when_their_time_has_passed() -> None:
    view, _ = _marked(Service.TTS, until_ms=100)
    view.expire_marks(99)
    assert view.marked == {NodeId("n1")}
    view.expire_marks(100)
    assert view.marked == set()


def test_a_mark_goes_with_its_node() -> None:
    view, _ = _marked(Service.TTS, until_ms=100)
    view.drop(NodeId("n1"))
    view.expire_marks(50)
    assert view.marked == set()
    assert enter(view, a_node()).refuses(a_need(), 50) is None


def test_a_node_full_and_unready_is_not_ready_first() -> None:
    view = a_fleet([a_node()])
    view.take(NodeId("n1"), 1)
    entry = view.get(NodeId("n1"))
    assert entry is not None
    assert entry.refuses(a_need(), 0) is Reason.FULL
    view.set_load(entry, 99.0, is_overloaded=True)
    assert entry.refuses(a_need(), 0) is Reason.OVERLOADED
    view.mark(entry, Service.TTS, 100)
    assert entry.refuses(a_need(), 0) is Reason.MODEL_UNAVAILABLE
    view.set_health(entry, a_health(NodeStatus.DRAINING))
    assert entry.refuses(a_need(), 0) is Reason.NOT_READY


def test_a_private_node_without_a_tenant_can_serve_who_names_it() -> None:
    view = a_fleet([a_node("n1", accepts_public=False), a_node("n2", accepts_public=False)])
    mine, other = view.get(NodeId("n1")), view.get(NodeId("n2"))
    assert mine is not None
    assert other is not None
    assert mine.refuses(a_need(preferred="n1"), 0) is None
    assert other.refuses(a_need(preferred="n1"), 0) is Reason.TENANT


def test_what_a_node_says_of_itself_anew_replaces_what_was_thought_of_it() -> None:
    view = a_fleet([a_node(slots=2)])
    view.take(NodeId("n1"), 1)
    entry = view.put(a_node(slots=1), a_health())
    assert entry.refuses(a_need(), 0) is Reason.FULL
    enter_again = view.put(a_node(slots=4, services=services("asr")), a_health())
    assert enter_again is entry
    assert entry.refuses(a_need(), 0) is Reason.SERVICE_MISSING
    assert entry.refuses(a_need(services=("asr",)), 0) is None
    assert entry.used == 1
