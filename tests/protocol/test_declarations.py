"""Is a node taken at its word, and is what it leaves out left as it was?"""

from __future__ import annotations

import math
from typing import Any

import pytest

from dragoman.core.capability import Languages, NmtModel, NmtRule, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.language import Language
from dragoman.core.node import Node
from dragoman.protocol.codec import FormatError
from dragoman.protocol.declarations import busiest, is_plausible, read_heartbeat, read_register
from dragoman.protocol.node_messages import LanguageDeclaration
from tests.support.builders import (
    a_model,
    a_node_heartbeat,
    a_node_register,
    a_service,
    a_usage,
    capabilities,
    language_declaration,
    nmt_declaration,
    pairs,
)

N1 = NodeId("n1")
EN, DE, PT, ZH = (Language(tag) for tag in ("en", "de", "pt", "zh"))


def registered(**fields: Any) -> Node:
    return read_register(a_node_register(**fields), N1, slots_default=4)


def languages_of(declared: LanguageDeclaration | None, **fields: Any) -> Languages:
    return registered(language_capabilities=declared, **fields).languages


# --- who it is and how much it takes


def test_a_node_has_the_id_it_is_given() -> None:
    assert read_register(a_node_register(node_id=None), N1, slots_default=4).id == N1


@pytest.mark.parametrize(("said", "slots"), [(None, 4), (0, 0), (1, 1), (9, 9)])
def test_a_node_takes_as_many_jobs_as_it_says(said: int | None, slots: int) -> None:
    assert registered(max_concurrent_jobs=said).slots == slots


def test_a_node_belongs_to_whom_it_says() -> None:
    node = registered(tenant_id="acme", accept_public_jobs=False)
    assert (node.tenant, node.accepts_public) == (TenantId("acme"), False)
    assert registered().tenant is None


def test_only_services_that_are_ready_and_known_count() -> None:
    listed = [*capabilities("asr", "telepathy"), *capabilities("nmt", "tts")]
    listed[0] = capabilities("asr")[0]
    node = registered(capability_by_type=[*listed, type(listed[0])(type="tone", ready=False, reason="no model")])
    assert node.services == {Service.ASR, Service.NMT, Service.TTS}


# --- which languages


def test_a_node_that_says_nothing_is_restricted_in_nothing() -> None:
    assert languages_of(None) == languages_of(language_declaration()) == Languages()


def test_tags_are_reduced_to_languages() -> None:
    declared = language_declaration(
        asr_languages=["zh-CN", "zh_Hans", "en-US"], tts_languages=["pt-BR"], semantic_languages=[]
    )
    assert languages_of(declared) == Languages(asr=frozenset({ZH, EN}), tts=frozenset({PT}), semantic=frozenset())


def test_pairs_and_models_are_taken_over() -> None:
    declared = language_declaration(
        supported_language_pairs=[("en-US", "pt-BR"), ("zh-CN", "en")],
        nmt_capabilities=[
            nmt_declaration("any_to_any", "en-GB", "de", blocked_pairs=pairs(("de", "en"))),
            nmt_declaration("specific_pairs", supported_pairs=pairs(("zh", "pt"))),
        ],
    )
    assert languages_of(declared) == Languages(
        pairs=frozenset({(EN, PT), (ZH, EN)}),
        nmt=(
            NmtModel(languages=frozenset({EN, DE}), rule=NmtRule.ANY_TO_ANY, blocked=frozenset({(DE, EN)})),
            NmtModel(languages=frozenset(), rule=NmtRule.SPECIFIC_PAIRS, supported=frozenset({(ZH, PT)})),
        ),
    )


def test_that_a_language_may_be_found_out_is_no_language() -> None:
    assert languages_of(language_declaration(asr_languages=["auto", "en"])).asr == frozenset({EN})


@pytest.mark.parametrize(
    ("field", "declared"),
    [
        ("asr_languages", language_declaration(asr_languages=["en", "?"])),
        ("tts_languages", language_declaration(tts_languages=["x"])),
        ("semantic_languages", language_declaration(semantic_languages=["en us"])),
        ("supported_language_pairs", language_declaration(supported_language_pairs=[("en", "1")])),
        ("nmt_capabilities.languages", language_declaration(nmt_capabilities=[nmt_declaration("any_to_en", "?")])),
        (
            "nmt_capabilities.blocked_pairs",
            language_declaration(nmt_capabilities=[nmt_declaration("any_to_en", blocked_pairs=pairs(("?", "en")))]),
        ),
    ],
)
def test_a_tag_that_is_none_is_blamed_on_its_field(field: str, declared: LanguageDeclaration) -> None:
    with pytest.raises(FormatError, match=rf"^{field}: '"):
        languages_of(declared)
    with pytest.raises(FormatError, match=rf"^{field}: '"):
        read_heartbeat(a_node_heartbeat(language_capabilities=declared), registered())


# --- what its models tell, when it declares no languages


def test_models_tell_the_languages_of_a_node_that_declares_none() -> None:
    models = [
        a_model("a1", "asr", src_lang="en-US"),
        a_model("a2", "asr", src_lang="de"),
        a_model("t1", "tts", tgt_lang="pt"),
        a_model("t2", "tts", src_lang="zh"),
        a_model("m1", "nmt", src_lang="en", tgt_lang="pt"),
    ]
    assert languages_of(None, installed_models=models) == Languages(
        asr=frozenset({EN, DE}), tts=frozenset({PT, ZH}), pairs=frozenset({(EN, PT)})
    )


def test_models_tell_nothing_when_languages_are_declared() -> None:
    models = [a_model("a1", "asr", src_lang="en")]
    assert languages_of(language_declaration(tts_languages=["pt"]), installed_models=models).asr is None


def test_a_model_that_is_off_tells_nothing() -> None:
    models = [a_model("a1", "asr", src_lang="en"), a_model("a2", "asr", src_lang="de", enabled=False)]
    assert languages_of(None, installed_models=models).asr == frozenset({EN})


@pytest.mark.parametrize("tag", [None, "auto", "AUTO"])
def test_a_model_for_any_language_restricts_nothing(tag: str | None) -> None:
    models = [
        a_model("a1", "asr", src_lang="en"),
        a_model("a2", "asr", src_lang=tag),
        a_model("m1", "nmt", src_lang=tag, tgt_lang="pt"),
        a_model("t1", "tts", tgt_lang=tag),
    ]
    assert languages_of(None, installed_models=models) == Languages()


def test_a_model_with_a_tag_that_is_none_is_blamed_on_its_field() -> None:
    with pytest.raises(FormatError, match=r"^installed_models.src_lang: '\?'"):
        languages_of(None, installed_models=[a_model("a1", "asr", src_lang="?")])


# --- by which names its services are known


def test_services_and_models_are_known_by_their_names() -> None:
    node = registered(
        installed_services=[a_service("whisper", "asr", model_id="w-small"), a_service("x", "telepathy")],
        installed_models=[a_model("m1", "nmt"), a_model("m2", "telepathy")],
    )
    assert dict(node.service_ids) == {"whisper": Service.ASR, "w-small": Service.ASR, "m1": Service.NMT}


def test_models_that_a_heartbeat_does_not_list_are_known_still() -> None:
    node = registered(installed_services=[a_service("whisper", "asr")], installed_models=[a_model("m1", "nmt")])
    after = read_heartbeat(a_node_heartbeat(installed_services=[a_service("piper", "tts")]), node)
    assert dict(after.service_ids) == {"whisper": Service.ASR, "piper": Service.TTS, "m1": Service.NMT}
    assert read_heartbeat(a_node_heartbeat(installed_services=[a_service("piper", "tts")]), after) == after


def test_models_that_a_heartbeat_lists_are_all_there_are() -> None:
    node = registered(installed_services=[a_service("whisper", "asr")], installed_models=[a_model("m1", "nmt")])
    heartbeat = a_node_heartbeat(
        installed_services=[a_service("whisper", "asr")], installed_models=[a_model("m2", "tts")]
    )
    assert dict(read_heartbeat(heartbeat, node).service_ids) == {"whisper": Service.ASR, "m2": Service.TTS}


def test_the_names_of_a_node_are_bounded() -> None:
    node = registered()
    for beat in range(10):
        services = [a_service(f"s{beat}-{number}") for number in range(1000)]
        node = read_heartbeat(a_node_heartbeat(installed_services=services), node)
    assert len(node.service_ids) == 4000
    assert "s9-999" in dict(node.service_ids)


# --- heartbeats


def test_a_heartbeat_tells_which_services_are_ready_now() -> None:
    after = read_heartbeat(a_node_heartbeat(capability_by_type=capabilities("nmt")), registered())
    assert after.services == {Service.NMT}


def test_what_a_heartbeat_leaves_out_is_as_before() -> None:
    node = registered(
        language_capabilities=language_declaration(asr_languages=["en"]),
        installed_models=[a_model("m1", "nmt")],
        tenant_id="acme",
        max_concurrent_jobs=7,
        accept_public_jobs=False,
    )
    assert read_heartbeat(a_node_heartbeat(), node) == node


def test_a_heartbeat_may_change_the_languages() -> None:
    node = registered(language_capabilities=language_declaration(asr_languages=["en"], tts_languages=["en"]))
    changed = a_node_heartbeat(language_capabilities=language_declaration(asr_languages=["de"]))
    assert read_heartbeat(changed, node).languages == Languages(asr=frozenset({DE}))


# --- figures


@pytest.mark.parametrize("figure", [0.0, 50.0, 100.0])
def test_percentages_of_a_whole_are_plausible(figure: float) -> None:
    assert is_plausible(a_usage(cpu_percent=figure, mem_percent=figure, gpu_percent=figure, gpu_mem_percent=figure))


@pytest.mark.parametrize("figure", [-1.0, 100.1, math.inf, math.nan])
@pytest.mark.parametrize("field", ["cpu_percent", "mem_percent", "gpu_percent", "gpu_mem_percent"])
def test_other_figures_are_not(field: str, figure: float) -> None:
    assert not is_plausible(a_usage(**{field: figure}))


def test_the_busiest_resource_counts() -> None:
    assert busiest(a_usage(cpu_percent=1.0, mem_percent=2.0)) == 2.0
    assert busiest(a_usage(cpu_percent=1.0, mem_percent=2.0, gpu_percent=9.0, gpu_mem_percent=3.0)) == 9.0
