"""Does a node serve exactly the languages it said it does?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Languages, NmtModel, NmtRule, Service, need
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.language import AUTO, Language
from tests.core.fleet import examples, languages, pairs, services

EN, ZH, JA, KO = (Language(tag) for tag in ("en", "zh", "ja", "ko"))
_KNOWN = (EN, ZH, JA, KO)
_UNLISTED = Language("sw")
"""A language that no generated node mentions."""

_language = st.sampled_from(_KNOWN)
_set = st.frozensets(_language, max_size=3)
_pairs = st.frozensets(st.tuples(_language, _language), max_size=4)
_models = st.builds(NmtModel, languages=_set, rule=st.sampled_from(NmtRule), supported=_pairs, blocked=_pairs)
_nodes = st.builds(
    Languages,
    asr=st.none() | _set,
    tts=st.none() | _set,
    semantic=st.none() | _set,
    nmt=st.none() | st.lists(_models, max_size=2).map(tuple),
    pairs=st.none() | _pairs,
)
_services = st.frozensets(st.sampled_from(Service))


def _model(rule: NmtRule, *tags: str, **fields: frozenset[tuple[Language, Language]]) -> NmtModel:
    return NmtModel(languages=languages(*tags), rule=rule, **fields)


# --- translation models


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        (NmtRule.ANY_TO_ANY, {(EN, ZH), (ZH, EN)}),
        (NmtRule.ANY_TO_EN, {(ZH, EN)}),
        (NmtRule.EN_TO_ANY, {(EN, ZH)}),
        (NmtRule.SPECIFIC_PAIRS, {(ZH, JA)}),
    ],
)
def test_a_rule_covers_its_pairs_and_no_others(rule: NmtRule, covered: set[tuple[Language, Language]]) -> None:
    model = _model(rule, "en", "zh", supported=pairs(("zh", "ja")))
    assert {(src, tgt) for src in _KNOWN for tgt in _KNOWN if src != tgt and model.covers(src, tgt)} == covered


def test_english_need_not_be_listed_where_the_rule_names_it() -> None:
    assert _model(NmtRule.ANY_TO_EN, "zh").covers(ZH, EN)
    assert _model(NmtRule.EN_TO_ANY, "zh").covers(EN, ZH)


@pytest.mark.parametrize("rule", NmtRule)
def test_a_blocked_pair_is_not_covered_whatever_else_is_said(rule: NmtRule) -> None:
    everything = frozenset((src, tgt) for src in _KNOWN for tgt in _KNOWN)
    model = _model(rule, *_KNOWN, supported=everything, blocked=everything)
    assert not any(model.covers(src, tgt) for src in _KNOWN for tgt in _KNOWN)


def test_a_block_holds_in_one_direction_only() -> None:
    model = _model(NmtRule.ANY_TO_ANY, "en", "zh", blocked=pairs(("en", "zh")))
    assert not model.covers(EN, ZH)
    assert model.covers(ZH, EN)


def test_pairs_are_heeded_by_the_rule_of_specific_pairs_only() -> None:
    supported = pairs(("ja", "ko"))
    assert _model(NmtRule.SPECIFIC_PAIRS, supported=supported).covers(JA, KO)
    assert not _model(NmtRule.ANY_TO_ANY, "en", "zh", supported=supported).covers(JA, KO)


def test_a_model_without_languages_covers_nothing() -> None:
    for rule in NmtRule:
        assert not any(_model(rule).covers(src, tgt) for src in _KNOWN for tgt in _KNOWN)


# --- whole nodes


def test_a_node_that_said_nothing_serves_everything() -> None:
    silent = Languages()
    assert all(silent.serve(frozenset(Service), src, tgt) for src in (*_KNOWN, AUTO) for tgt in _KNOWN)


@pytest.mark.parametrize(
    ("declared", "service"),
    [
        (Languages(asr=frozenset()), "asr"),
        (Languages(nmt=()), "nmt"),
        (Languages(pairs=frozenset()), "nmt"),
        (Languages(tts=frozenset()), "tts"),
        (Languages(semantic=frozenset()), "semantic"),
    ],
)
@pytest.mark.parametrize("src", [EN, AUTO])
def test_an_empty_list_allows_nothing_to_its_service_and_all_to_the_others(
    declared: Languages, service: str, src: Language
) -> None:
    assert not declared.serve(services(service), src, ZH)
    assert declared.serve(frozenset(Service) - services(service), src, ZH)


def test_hearing_goes_by_the_source_and_speaking_by_the_target() -> None:
    declared = Languages(asr=languages("en"), tts=languages("zh"))
    both = services("asr", "tts")
    assert declared.serve(both, EN, ZH)
    assert not declared.serve(both, ZH, EN)
    assert not declared.serve(both, EN, EN)
    assert not declared.serve(both, ZH, ZH)


def test_tone_knows_no_languages() -> None:
    nothing = Languages(asr=frozenset(), tts=frozenset(), semantic=frozenset(), nmt=(), pairs=frozenset())
    assert nothing.serve(services("tone"), EN, ZH)


def test_a_pair_must_be_within_both_the_models_and_the_listed_pairs() -> None:
    models = (_model(NmtRule.ANY_TO_ANY, "en", "zh"),)
    declared = Languages(nmt=models, pairs=pairs(("en", "zh"), ("en", "ja")))
    assert declared.serve(services("nmt"), EN, ZH)
    assert not declared.serve(services("nmt"), ZH, EN)
    assert not declared.serve(services("nmt"), EN, JA)


def test_one_of_several_models_is_enough() -> None:
    declared = Languages(nmt=(_model(NmtRule.EN_TO_ANY, "zh"), _model(NmtRule.ANY_TO_EN, "ja")))
    assert declared.serve(services("nmt"), JA, EN)
    assert not declared.serve(services("nmt"), JA, ZH)


def test_a_block_of_one_model_does_not_bind_another() -> None:
    blocked = _model(NmtRule.ANY_TO_ANY, "en", "zh", blocked=pairs(("en", "zh")))
    assert Languages(nmt=(blocked, _model(NmtRule.EN_TO_ANY, "zh"))).serve(services("nmt"), EN, ZH)


def test_speech_in_an_unknown_language_can_be_written_down_by_any_node_that_hears() -> None:
    assert Languages(asr=languages("en")).serve(services("asr"), AUTO, EN)


def test_a_node_that_hears_one_language_and_translates_another_is_no_use_for_an_unknown_one() -> None:
    declared = Languages(asr=languages("ja"), nmt=(_model(NmtRule.ANY_TO_EN, "zh"),))
    assert not declared.serve(services("asr", "nmt"), AUTO, EN)


@examples(500)
@given(_nodes, _services, _language)
def test_unknown_speech_is_served_when_some_one_language_would_be(
    declared: Languages, asked: frozenset[Service], tgt: Language
) -> None:
    sources = {*_KNOWN, _UNLISTED}
    if Service.NMT in asked:
        sources.discard(tgt)
    assert declared.serve(asked, AUTO, tgt) == any(declared.serve(asked, src, tgt) for src in sources)


@examples(200)
@given(_nodes, _services, _language, _language)
def test_services_are_judged_one_by_one(
    declared: Languages, asked: frozenset[Service], src: Language, tgt: Language
) -> None:
    one_by_one = [declared.serve(frozenset({service}), src, tgt) for service in asked]
    assert declared.serve(asked, src, tgt) == all(one_by_one)


# --- needs


def test_equal_needs_are_one_object_so_that_verdicts_on_them_are_shared() -> None:
    first = need(services("asr"), ((EN, ZH),), TenantId("acme"), NodeId("n1"))
    assert need(services("asr"), ((EN, ZH),), TenantId("acme"), NodeId("n1")) is first


def test_needs_that_differ_in_anything_are_different() -> None:
    everything = {
        need(services("asr"), ((EN, ZH),)),
        need(services("nmt"), ((EN, ZH),)),
        need(services("asr"), ((ZH, EN),)),
        need(services("asr"), ((EN, ZH),), TenantId("acme")),
        need(services("asr"), ((EN, ZH),), None, NodeId("n1")),
    }
    assert len(everything) == 5
