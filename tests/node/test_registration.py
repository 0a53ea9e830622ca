"""What does a node say about itself?"""

import asyncio
import os

import psutil
import pytest

from dragoman.core.language import LanguageTagError
from dragoman.node import Gpu, Node, NodeRefusedError, Service, Services, any_to_any, english_to_any
from dragoman.protocol.node_messages import NodeHeartbeat, NodeRegister
from tests.node.fake_scheduler import WAIT_S, fake_scheduler, registered, running


async def _echo(text: str, src: str, tgt: str) -> str:
    return text


def _translator() -> Services:
    services = Services()
    services.translates(("en", "pt-BR"), ("pt", "en"), service_id="nmt-test")(_echo)
    return services


def _register(node: Node) -> NodeRegister:
    async def ask() -> NodeRegister:
        async with fake_scheduler() as scheduler, running(node, scheduler.url):
            return await (await scheduler.peer()).welcome()

    return asyncio.run(ask())


def test_a_node_says_who_it_is_and_what_it_runs_on() -> None:
    register = _register(
        Node(
            _translator(),
            slots=3,
            node_id="n-1",
            tenant_id="acme",
            accept_public_jobs=False,
            gpus=[Gpu(name="g", memory_gb=8)],
        )
    )
    assert (register.node_id, register.tenant_id, register.accept_public_jobs) == ("n-1", "acme", False)
    assert (register.max_concurrent_jobs, register.capability_schema_version) == (3, "2.0")
    assert register.hardware.cpu_cores == os.cpu_count()
    assert register.hardware.memory_gb == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.01)
    assert register.hardware.gpus == [Gpu(name="g", memory_gb=8)]


def test_a_node_says_for_each_service_whether_it_is_ready_and_why_not() -> None:
    services = _translator()
    services.absent(Service.TTS, "the voices are on holiday")
    register = _register(Node(services))
    by_type = {capability.type: capability for capability in register.capability_by_type}
    assert set(by_type) == {"asr", "nmt", "tts", "tone", "semantic"}
    assert by_type["nmt"].ready
    assert by_type["nmt"].ready_impl_ids == ["nmt-test"]
    assert not by_type["tts"].ready
    assert by_type["tts"].reason == "the voices are on holiday"
    assert not by_type["asr"].ready
    assert by_type["asr"].reason
    assert register.installed_services is not None
    assert [(one.service_id, one.type) for one in register.installed_services] == [("nmt-test", "nmt")]


def test_pairs_are_declared_as_primary_languages() -> None:
    declared = _register(Node(_translator())).language_capabilities
    assert declared is not None
    assert declared.asr_languages == []
    assert declared.tts_languages == []
    assert declared.nmt_capabilities is not None
    model = declared.nmt_capabilities[0]
    assert (model.rule, model.languages, model.blocked_pairs) == ("specific_pairs", ["en", "pt"], None)
    assert [(pair.src, pair.tgt) for pair in model.supported_pairs or ()] == [("en", "pt"), ("pt", "en")]


def test_models_by_rule_are_declared_by_their_rule() -> None:
    services = Services()
    services.translates(model=any_to_any("en", "es", "pt", blocked=[("es", "pt")]), service_id="a")(_echo)
    services.translates(model=english_to_any("de"), service_id="b")(_echo)
    declared = _register(Node(services)).language_capabilities
    assert declared is not None
    assert declared.nmt_capabilities is not None
    every, from_english = declared.nmt_capabilities
    assert (every.rule, every.supported_pairs) == ("any_to_any", None)
    assert [(pair.src, pair.tgt) for pair in every.blocked_pairs or ()] == [("es", "pt")]
    assert (from_english.rule, from_english.languages) == ("en_to_any", ["de"])


def test_a_recogniser_without_languages_restricts_nothing() -> None:
    services = Services()
    services.recognises()(lambda audio: "")
    services.recognises("en", service_id="other")(lambda audio: "")
    declared = _register(Node(services)).language_capabilities
    assert declared is not None
    assert declared.asr_languages is None


def test_the_first_heartbeat_comes_at_once_and_tells_the_load() -> None:
    async def story() -> None:
        async with registered(Node(_translator(), heartbeat_s=3600)) as peer:
            beat = await peer.expect(NodeHeartbeat)
            assert beat.node_id == "node-named-by-scheduler"
            assert 0 <= beat.resource_usage.cpu_percent <= 100
            assert 0 < beat.resource_usage.mem_percent <= 100
            assert (beat.resource_usage.running_jobs, beat.running_job_ids) == (0, [])
            assert any(capability.ready for capability in beat.capability_by_type)

    asyncio.run(story())


@pytest.mark.parametrize("json", [False, True])
def test_a_node_speaks_messagepack_unless_told_to_speak_json(json: bool) -> None:
    async def story() -> None:
        async with registered(Node(_translator(), json=json, token="secret")) as peer:
            assert peer.is_binary is not json
            assert peer.token == "Bearer secret"
            await peer.expect(NodeHeartbeat)

    asyncio.run(story())


def test_a_node_that_is_refused_for_good_stops_and_says_why() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            task = asyncio.create_task(Node(_translator()).serve(scheduler.url))
            await (await scheduler.peer()).refuse("INVALID_CAPABILITY_SCHEMA")
            async with asyncio.timeout(WAIT_S):
                await task

    with pytest.raises(NodeRefusedError, match="INVALID_CAPABILITY_SCHEMA: because of the test"):
        asyncio.run(story())


def test_services_that_cannot_be_are_refused_where_they_are_declared() -> None:
    services = _translator()
    with pytest.raises(ValueError, match="two services are called 'nmt-test'"):
        services.include(_translator())
    with pytest.raises(ValueError, match="wants either pairs"):
        services.translates()
    with pytest.raises(LanguageTagError):
        services.speaks("not a language")
    with pytest.raises(LanguageTagError, match="no language to serve"):
        services.recognises("auto")
    with pytest.raises(ValueError, match="at least one service"):
        Node(Services())
    with pytest.raises(ValueError, match="slots = 0"):
        Node(services, slots=0)
