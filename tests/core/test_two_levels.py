"""Is a job given to the right pool, and within it to a good node?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Languages, Need, NmtModel, NmtRule, need
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.language import Language
from dragoman.core.node import Node
from dragoman.core.pools import OUTSIDE, Match, Naming, Pool, PoolPolicy, Scope
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.selection import Affinity, Fallback, Ranking, SelectionPolicy, Strategy, rank_nodes
from dragoman.core.view import FleetView
from tests.core.fleet import a_node, enter, examples, languages, pairs, services
from tests.support.builders import a_need

_ON = PoolPolicy(is_on=True, requires_semantic=False)
_SAMPLED = SelectionPolicy(sample_size=20)


def _translates(*tags: str) -> Languages:
    return Languages(nmt=(NmtModel(languages=languages(*tags), rule=NmtRule.ANY_TO_ANY),))


def _view(policy: PoolPolicy, *nodes: Node) -> FleetView:
    view = FleetView(policy)
    for node in nodes:
        enter(view, node)
    return view


def _rank(view: FleetView, wanted: Need, seed: int = 1, **said: Any) -> Ranking | Refusal:
    return rank_nodes(wanted, view, said.pop("policy", _SAMPLED), Random(seed), now_ms=0, **said)


def _ranking(view: FleetView, wanted: Need, seed: int = 1, **said: Any) -> Ranking:
    ranking = _rank(view, wanted, seed, **said)
    assert isinstance(ranking, Ranking)
    return ranking


def _pools(view: FleetView, wanted: Need, **said: Any) -> set[str]:
    return {_ranking(view, wanted, seed, **said).pool for seed in range(40)}


_EN_ZH, _ZH_EN = a_need(src="en", tgt="zh"), a_need(src="zh", tgt="en")


# --- the first level


def test_every_pool_that_contains_both_languages_gets_jobs_in_proportion_to_its_free_slots() -> None:
    view = _view(
        _ON,
        a_node("a", 3, languages=_translates("en", "zh")),
        a_node("b", 1, languages=_translates("en", "ja", "zh")),
        a_node("c", 9, languages=_translates("en", "ja")),
    )
    rng = Random(7)
    chosen = Counter(
        ranking.pool
        for _ in range(4000)
        if isinstance(ranking := rank_nodes(_EN_ZH, view, _SAMPLED, rng, now_ms=0), Ranking)
    )
    assert set(chosen) == {"en-zh", "en-ja-zh"}
    assert chosen["en-zh"] / 4000 == pytest.approx(0.75, abs=0.05)


def test_a_pool_is_full_and_the_job_goes_to_another_that_is_for_it() -> None:
    view = _view(
        _ON, a_node("a", languages=_translates("en", "zh")), a_node("b", languages=_translates("en", "ja", "zh"))
    )
    view.set_used(NodeId("a"), 1)
    for seed in range(20):
        assert _ranking(view, _EN_ZH, seed).candidates[0].node_id == "b"


def test_the_pools_are_full_and_the_job_goes_outside() -> None:
    view = _view(replace(_ON, pools_max=1), *(a_node(f"a{n}", languages=_translates("en", "zh")) for n in range(2)))
    enter(view, a_node("b", languages=_translates("en", "ja", "zh")))
    for name in ("a0", "a1"):
        view.set_used(NodeId(name), 1)
    ranking = _ranking(view, _EN_ZH)
    assert (ranking.candidates[0].node_id, ranking.pool, ranking.fallback) == ("b", OUTSIDE, Fallback.POOLS_FULL)
    # A language that only nodes of a dropped set speak.
    ranking = _ranking(view, a_need(src="ja", tgt="en"))
    assert (ranking.candidates[0].node_id, ranking.pool, ranking.fallback) == ("b", OUTSIDE, Fallback.NO_POOL)


def test_without_fallback_a_job_waits_for_its_pools() -> None:
    policy = replace(_ON, pools_max=1, leaves_pools=False)
    view = _view(policy, *(a_node(f"a{n}", languages=_translates("en", "zh")) for n in range(2)))
    outside = enter(view, a_node("b", languages=_translates("en", "ja", "zh")))
    for name in ("a0", "a1"):
        view.set_used(NodeId(name), 1)
    refusal = _rank(view, _EN_ZH)
    assert refusal == Refusal(counts={Reason.FULL: 2, Reason.OUTSIDE_POOLS: 1})
    assert refusal.is_worth_waiting
    assert outside.refuses(_EN_ZH, 0) is Reason.OUTSIDE_POOLS


def test_strictly_there_is_no_node_without_a_pool() -> None:
    view = _view(replace(_ON, is_strict=True), a_node("a"), a_node("b", services=services("asr", "tts")))
    wanted = a_need(services=("asr",))
    assert {candidate.node_id for candidate in _ranking(view, wanted).candidates} == {"a"} | {"b"}
    alone = _view(replace(_ON, is_strict=True), a_node("b", services=services("asr", "tts")))
    refusal = _rank(alone, wanted)
    assert refusal == Refusal(counts={Reason.OUTSIDE_POOLS: 1})
    assert not refusal.is_worth_waiting


@pytest.mark.parametrize("naming", list(Naming))
@pytest.mark.parametrize("has_mixed", [False, True])
def test_speech_in_a_language_to_be_found_out_finds_its_pools(naming: Naming, has_mixed: bool) -> None:
    view = _view(
        replace(_ON, naming=naming, has_mixed=has_mixed),
        a_node("a", languages=_translates("en", "zh")),
        a_node("b", languages=_translates("en", "ja")),
        a_node("c", languages=_translates("fr", "ja")),
    )
    found = _pools(view, a_need(src="auto", tgt="en"))
    usual = {
        Naming.SET: {"en-zh", "en-ja"},
        Naming.PAIR: {"zh-en", "ja-en"},
        Naming.BIDIRECTIONAL: {"en-zh", "en-ja"},
    }[naming]
    assert found == usual | ({"*-en"} if has_mixed else set())
    # Spoken in a language that is known, a mixed pool is not asked.
    assert _pools(view, a_need(src="fr", tgt="ja")) <= {"fr-ja"}


@pytest.mark.parametrize("naming", list(Naming))
def test_two_ways_at_once_finds_the_pools_whose_nodes_can_do_both(naming: Naming) -> None:
    both = need(
        frozenset(services("asr", "nmt", "tts")), ((Language("en"), Language("zh")), (Language("zh"), Language("en")))
    )
    view = _view(
        replace(_ON, naming=naming),
        a_node("a", languages=_translates("en", "zh")),
        a_node("b", languages=Languages(pairs=pairs(("en", "zh")))),
    )
    ranking = _ranking(view, both)
    assert [candidate.node_id for candidate in ranking.candidates] == ["a"]
    assert ranking.pool in {"en-zh", "zh-en"}


def test_tags_with_regions_and_names_with_separators_lead_to_no_wrong_pool() -> None:
    # "zh-en" of a set and of a pair, and languages whose names begin alike.
    view = _view(_ON, a_node("a", languages=_translates("zh", "en")), a_node("b", languages=_translates("zha", "en")))
    assert _pools(view, _ZH_EN) == {"en-zh"}
    assert _pools(view, a_need(src="zha", tgt="en")) == {"en-zha"}
    assert isinstance(_rank(view, a_need(src="z", tgt="en")), Refusal)


# --- pools made by hand

_SPEECH = Pool(name="speech", services=services("asr", "nmt", "tts"), pairs=pairs(("zh", "en"), ("en", "zh")))
_TEXT = Pool(name="text", services=services("nmt"))
_BY_HAND = replace(_ON, manual=(_SPEECH, _TEXT))


def test_a_pool_made_by_hand_is_for_the_jobs_that_it_contains() -> None:
    view = _view(_BY_HAND, a_node("a"), a_node("b", services=services("nmt")))
    assert _pools(view, _ZH_EN) == {"speech"}
    assert _pools(view, a_need(src="zh", tgt="en", services=("nmt",))) == {"speech", "text"}
    assert _pools(view, a_need(src="fr", tgt="en", services=("nmt",))) == {"text"}
    exact = replace(_BY_HAND, match=Match.EXACT)
    assert _pools(_view(exact, a_node("a")), a_need(src="zh", tgt="en", services=("nmt",))) == {"text"}


def test_only_the_core_services_are_matched_unless_all_are_to_be() -> None:
    wanted = a_need(src="zh", tgt="en", services=("asr", "nmt", "tts", "tone"))
    able = a_node("a", services=services("asr", "nmt", "tts", "tone"))
    assert _pools(_view(_BY_HAND, able), wanted) == {"speech"}
    assert _pools(_view(replace(_BY_HAND, scope=Scope.ALL_REQUIRED), able), wanted) == {OUTSIDE}


def test_a_tenant_has_its_own_pool_first_and_others_when_it_is_full() -> None:
    vip = Pool(name="vip", service_ids=frozenset({"large"}))
    policy = replace(_ON, manual=(vip, Pool(name="rest")), overrides={TenantId("acme"): "vip"})
    large = a_node(
        "v",
        service_ids=(
            ("large", next(iter(services("asr")))),
            ("nmt", next(iter(services("nmt")))),
        ),
    )
    view = _view(
        replace(policy, manual=(replace(vip, services=services("nmt", "tts")), Pool(name="rest"))),
        large,
        a_node("r", 8),
    )
    wanted = a_need(tenant="acme")
    assert _pools(view, wanted) == {"vip"}
    view.set_used(NodeId("v"), 1)
    assert _ranking(view, wanted).fallback is Fallback.POOL_FULL
    assert _ranking(view, wanted).candidates[0].node_id == "r"


# --- the second level


def test_the_least_loaded_of_the_sample_comes_first_and_the_freshest_of_equals() -> None:
    view = _view(_ON, *(a_node(f"n{n}", 8, languages=_translates("en", "zh")) for n in range(10)))
    for number in range(10):
        view.set_used(NodeId(f"n{number}"), 2 + number % 3)
    entry = view.get(NodeId("n3"))
    assert entry is not None
    view.set_health(entry, replace(entry.health, heartbeat_ms=5_000))
    assert _ranking(view, _EN_ZH).candidates[0].node_id == "n3"
    view.set_load(entry, 1.0, is_overloaded=False)
    assert _ranking(view, _EN_ZH).candidates[0].node_id != "n3"


def test_the_sample_is_as_good_as_one_drawn_from_all_free_nodes() -> None:
    """The chance that the best of a sample is of a level: (share at or above it) ** size - (share above) ** size."""
    view = _view(_ON, *(a_node(f"n{n}", 10, languages=_translates("en", "zh")) for n in range(200)))
    for number in range(200):
        view.set_used(NodeId(f"n{number}"), number // 20)
    rng, counts = Random(3), Counter[int]()
    policy, rounds = replace(_SAMPLED, sample_size=5), 4000
    for _ in range(rounds):
        ranking = rank_nodes(_EN_ZH, view, policy, rng, now_ms=0)
        assert isinstance(ranking, Ranking)
        counts[int(ranking.candidates[0].node_id[1:]) // 20] += 1
    for level in range(4):
        expected = (1 - level / 10) ** 5 - (1 - (level + 1) / 10) ** 5
        assert counts[level] / rounds == pytest.approx(expected, abs=0.04)


def test_while_any_slot_of_an_eligible_pool_is_free_no_job_is_refused() -> None:
    view = _view(_ON, *(a_node(f"n{n}", languages=_translates("en", "zh")) for n in range(300)))
    for number in range(299):
        view.set_used(NodeId(f"n{number}"), 1)
    assert [candidate.node_id for candidate in _ranking(view, _EN_ZH).candidates] == ["n299"]


def test_a_reservation_counts_at_once() -> None:
    view = _view(_ON, *(a_node(f"n{n}", languages=_translates("en", "zh")) for n in range(30)))
    for number in range(30):
        node_id = _ranking(view, _EN_ZH, number).candidates[0].node_id
        entry = view.get(node_id)
        assert entry is not None
        assert entry.used == 0
        view.take(node_id, 1)
    assert isinstance(_rank(view, _EN_ZH), Refusal)


@pytest.mark.parametrize("slots", [8, 40])
def test_a_sample_balances_nearly_as_well_as_taking_the_least_loaded_of_all(slots: int) -> None:
    """A thousand nodes at 80 % of their slots, jobs that end at random: no refusal, and the busiest nodes no busier."""

    def busiest(policy: PoolPolicy, selection: SelectionPolicy) -> int:
        nodes = [a_node(f"n{n}", slots, languages=_translates("en", "zh")) for n in range(1000)]
        view, rng, running = _view(policy, *nodes), Random(5), list[NodeId]()
        peak = 0
        for turn in range(20_000 + 800 * slots):
            if turn >= 800 * slots:
                at = int(rng.random() * len(running))
                running[at], running[-1] = running[-1], running[at]
                view.give_back(running.pop())
            ranking = rank_nodes(_EN_ZH, view, selection, rng, now_ms=0)
            assert isinstance(ranking, Ranking)
            entry = view.get(ranking.candidates[0].node_id)
            assert entry is not None
            view.take(entry.node.id, entry.used + 1)
            running.append(entry.node.id)
            if turn % 2000 == 1999:
                peak = max(peak, sorted(entry.used for entry in view)[998])
        return peak

    assert busiest(_ON, _SAMPLED) <= busiest(PoolPolicy(), SelectionPolicy()) + 1


def test_on_an_old_picture_fewer_nodes_are_compared() -> None:
    view = _view(_ON, *(a_node(f"n{n}", 100, languages=_translates("en", "zh")) for n in range(100)))
    for number in range(100):
        view.set_used(NodeId(f"n{number}"), number)
    view.heard_ms = 1_000
    policy = replace(_SAMPLED, fresh_ms=1_000)

    def mean(now_ms: int) -> float:
        found = 0
        for seed in range(300):
            ranking = rank_nodes(_EN_ZH, view, policy, Random(seed), now_ms=now_ms)
            assert isinstance(ranking, Ranking)
            found += int(ranking.candidates[0].node_id[1:])
        return found / 300

    assert mean(1_500) < 10 < mean(30_000)


# --- affinity


def test_a_key_keeps_its_pool_and_another_seed_deals_anew() -> None:
    nodes = [a_node(f"n{tag}", languages=_translates("en", "zh", tag)) for tag in ("de", "fr", "ja", "ko")]
    view, other = _view(_ON, *nodes), _view(_ON, *reversed(nodes))
    reseeded = _view(replace(_ON, hash_seed=1), *nodes)
    keys = [f"s{number}" for number in range(400)]

    def dealt(fleet: FleetView) -> list[str]:
        return [_ranking(fleet, _EN_ZH, number, affinity=Affinity(key)).pool for number, key in enumerate(keys)]

    assert dealt(view) == dealt(other)
    assert all(60 < count < 140 for count in Counter(dealt(view)).values())
    assert len(set(dealt(view))) == 4
    assert dealt(reseeded) != dealt(view)
    # A pool that goes moves only the keys that it had.
    before = dealt(view)
    view.drop(NodeId("nja"))
    moved = [(was, now) for was, now in zip(before, dealt(view), strict=True) if was != now]
    assert {was for was, _ in moved} == {"en-ja-zh"}


def test_the_node_of_a_session_comes_first_while_it_can_serve() -> None:
    view = _view(_ON, *(a_node(f"n{n}", 4, languages=_translates("en", "zh")) for n in range(50)))
    view.set_used(NodeId("n7"), 3)
    kept = Affinity("s1", NodeId("n7"))
    for seed in range(20):
        assert _ranking(view, _EN_ZH, seed, affinity=kept).candidates[0].node_id == "n7"
    view.set_used(NodeId("n7"), 4)
    assert _ranking(view, _EN_ZH, affinity=kept).candidates[0].node_id != "n7"


# --- on or off makes no difference to who is served

_tags = st.sampled_from(["de", "en", "fr", "zh"])
_fleets = st.lists(
    st.builds(
        lambda number, tags, kinds, tenant, slots, used: (
            a_node(
                f"n{number}",
                slots,
                languages=_translates(*tags) if tags else Languages(),
                services=services(*kinds),
                tenant=tenant,
                accepts_public=tenant is None,
            ),
            used,
        ),
        st.integers(0, 30),
        st.frozensets(_tags, max_size=3),
        st.sampled_from([("asr", "nmt", "tts"), ("nmt", "tts"), ("asr", "nmt", "tts", "semantic"), ("asr",)]),
        st.sampled_from([None, None, TenantId("acme")]),
        st.integers(1, 3),
        st.integers(0, 3),
    ),
    max_size=12,
    unique_by=lambda row: row[0].id,
)
_needs = st.builds(
    lambda src, tgt, kinds, tenant: a_need(src=src, tgt=tgt, services=kinds, tenant=tenant),
    st.sampled_from(["auto", "de", "en", "zh"]),
    _tags,
    st.sampled_from([("asr", "nmt", "tts"), ("nmt", "tts"), ("asr",), ("asr", "nmt", "tts", "semantic")]),
    st.sampled_from([None, "acme"]),
)
_pool_policies = st.builds(
    PoolPolicy,
    is_on=st.just(True),
    naming=st.sampled_from(Naming),
    requires_semantic=st.booleans(),
    nodes_min=st.integers(1, 3),
    pools_max=st.integers(1, 4),
    has_mixed=st.booleans(),
    manual=st.sampled_from([None, None, (_SPEECH, _TEXT)]),
    scope=st.sampled_from(Scope),
    match=st.sampled_from(Match),
)


@given(
    fleet=_fleets,
    wanted=_needs,
    pools=_pool_policies,
    strategy=st.sampled_from(Strategy),
    size=st.integers(1, 4),
    tried=st.frozensets(st.integers(0, 30).map(lambda number: NodeId(f"n{number}")), max_size=3),
    key=st.none() | st.text(max_size=3),
    seed=st.integers(0, 99),
)
@examples(500)
def test_pools_on_or_off_serve_the_same_jobs_and_refuse_the_others_for_the_same_reasons(
    fleet: list[tuple[Node, int]],
    wanted: Need,
    pools: PoolPolicy,
    strategy: Strategy,
    size: int,
    tried: frozenset[NodeId],
    key: str | None,
    seed: int,
) -> None:
    on, off = FleetView(pools), FleetView()
    for node, used in fleet:
        enter(on, node, used=used)
        enter(off, node, used=used)
    policy = SelectionPolicy(strategy=strategy, sample_size=size)
    affinity = None if key is None else Affinity(key)
    one = rank_nodes(wanted, on, policy, Random(seed), now_ms=0, tried=tried, affinity=affinity)
    other = rank_nodes(wanted, off, SelectionPolicy(strategy=strategy), Random(seed), now_ms=0, tried=tried)
    if isinstance(other, Refusal):
        assert one == other
        return
    assert isinstance(one, Ranking)
    able = {node.id for node, _ in fleet if (entry := off.get(node.id)) and entry.refuses(wanted, 0) is None} - tried
    ids = [candidate.node_id for candidate in one.candidates]
    assert set(ids) <= able
    assert len(ids) == len(set(ids))
