"""The whole instance in fake time, choosing in two levels: which pool a job goes to, and what is seen of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import generate_latest

from dragoman.core.ids import JobId, NodeId
from dragoman.core.selection import Ranking
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import LanguageDeclaration
from dragoman.store.registry import PoolChange
from tests.support.builders import a_need
from tests.support.cluster import a_cluster, until
from tests.support.fake_time import run_in_fake_time
from tests.support.world import FakeNode, World, a_world, languages

_ON = {"scheduler__phase3__enabled": True, "scheduler__phase3__auto_pool_config__require_semantic": False}
_BY_HAND: dict[str, Any] = {
    "scheduler__phase3__enabled": True,
    "scheduler__phase3__auto_generate_language_pools": False,
    "scheduler__phase3__pools": [
        {"pool_id": 1, "name": "large", "required_services": ["large-v3", "nmt", "tts"]},
        {"pool_id": 2, "name": "rest", "language_pairs": [{"src": "en", "tgt": "pt"}]},
    ],
    "scheduler__phase3__tenant_overrides": [{"tenant_id": "acme", "pool_id": 1}],
}
_EN_PT, _PT_EN = languages(("en", "pt")), languages(("pt", "en"))


def _figures(world: World) -> dict[str, float]:
    text = generate_latest(world.app.parts.metrics.registry).decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_jobs_go_to_the_pool_of_their_languages_and_the_figures_say_so() -> None:
    async def story() -> None:
        async with a_world(**_ON) as world:
            node = await world.node("n1", slots=2, language_capabilities=_EN_PT)
            await world.node("n2", slots=3, language_capabilities=_PT_EN)
            session = await world.session()
            session.speak()
            node.ack(await node.gets_job(within_s=0.1))
            figures = _figures(world)
            assert figures['phase3_pool_selected_total{pool="en-pt"}'] == 1
            # Both nodes speak the same two languages.
            assert figures['dragoman_slots{pool="en-pt",state="used"}'] == 1
            assert figures['dragoman_slots{pool="en-pt",state="free"}'] == 4

    run_in_fake_time(story())


def test_a_node_that_learns_a_language_changes_its_pool() -> None:
    async def story() -> None:
        async with a_world(scheduler__phase3__auto_pool_config__pool_naming="pair", **_ON) as world:
            node = await world.node("n1", language_capabilities=_PT_EN)
            pools = world.app.parts.dispatcher.view.pools
            assert [group.pool.name for group in pools.planned()] == ["pt-en"]
            node.heartbeat(language_capabilities=languages(("pt", "en"), ("en", "pt")))
            assert [group.pool.name for group in pools.planned()] == ["en-pt", "pt-en"]
            session = await world.session()
            session.speak()
            await node.gets_job(within_s=0.1)
            node.hang_up()
            await until(lambda: list(pools.planned()) == [])

    run_in_fake_time(story())


def test_a_job_outside_of_every_pool_is_served_by_fallback_and_counted() -> None:
    async def story() -> None:
        async with a_world(scheduler__phase3__enabled=True) as world:
            # Without the semantic service, it is in no pool.
            node = await world.node("n1", language_capabilities=_EN_PT)
            session = await world.session()
            session.speak()
            await node.gets_job(within_s=0.1)
            figures = _figures(world)
            assert figures['phase3_pool_fallback_total{reason="no_pool"}'] == 1
            assert figures['phase3_pool_selected_total{pool="(outside)"}'] == 1

    run_in_fake_time(story())


def test_strictly_a_job_without_a_pool_is_refused_with_the_reason() -> None:
    async def story() -> None:
        async with a_world(scheduler__phase3__enabled=True, scheduler__phase3__strict_pool_eligibility=True) as world:
            await world.node("n1", language_capabilities=_EN_PT)
            session = await world.session()
            session.speak()
            await until(lambda: session.errors != [])
            (error,) = session.errors
            assert error.code == "NO_AVAILABLE_NODE"
            assert error.details is not None
            assert error.details["reasons"] == {"outside_pools": 1}

    run_in_fake_time(story())


def test_without_fallback_a_waiting_job_is_served_by_its_pool_only() -> None:
    async def story() -> None:
        settings = _ON | {
            "scheduler__phase3__fallback_scan_all_pools": False,
            "scheduler__phase3__auto_pool_config__min_nodes_per_pool": 2,
        }
        async with a_world(**settings) as world:
            both = [await world.node(f"n{n}", language_capabilities=_EN_PT) for n in (1, 2)]
            session = await world.session()
            first, second, waits = session.speak(), session.speak(), session.speak()
            jobs = [await node.gets_job(within_s=0.1) for node in both]
            outside = await world.node("n3", language_capabilities=languages(("en", "pt"), ("fr", "pt")))
            await asyncio.sleep(1)
            assert outside.jobs == []
            both[0].finish(jobs[0])
            assert (await both[0].gets_job(2, within_s=0.1)).utterance_index == waits
            assert {job.utterance_index for job in jobs} == {first, second}

    run_in_fake_time(story())


def test_a_tenant_is_served_by_its_own_pool() -> None:
    async def story() -> None:
        async with a_world(**_BY_HAND) as world:
            large = await world.node(
                "n1",
                slots=1,
                installed_services=[{"service_id": "large-v3", "type": "asr", "device": "cpu", "status": "running"}],
            )
            rest = await world.node("n2", slots=50)
            session = await world.session(tenant_id="acme")
            session.speak()
            await large.gets_job(within_s=0.1)
            session.speak()
            await rest.gets_job(within_s=0.1)
            assert _figures(world)['phase3_pool_fallback_total{reason="pool_full"}'] == 1

    run_in_fake_time(story())


def test_a_session_keeps_its_node_while_that_can_serve() -> None:
    async def story() -> None:
        settings = _ON | {"scheduler__phase3__enable_session_affinity": True}
        async with a_world(**settings) as world:
            nodes = [await world.node(f"n{n}", slots=2, language_capabilities=_EN_PT) for n in range(6)]
            session = await world.session()
            for _ in range(10):
                session.speak()
                await asyncio.sleep(0.1)
                node = next(node for node in nodes if node.jobs)
                node.finish(node.jobs[-1])
                await asyncio.sleep(0.1)
            assert [len(node.jobs) for node in nodes if node.jobs] == [10]

    run_in_fake_time(story())


def test_a_node_that_claims_ten_thousand_languages_is_refused_and_none_is_in_a_wrong_pool() -> None:
    async def story() -> None:
        async with a_world(**_ON) as world:
            letters = "abcdefghijklmnopqrstuv"
            many = [f"{a}{b}{c}" for a in letters for b in letters for c in letters][:10_000]
            claims = FakeNode(world, "n1")
            claims.register(language_capabilities=LanguageDeclaration(asr_languages=many, tts_languages=many))
            (error,) = await claims.hears(Error)
            assert error.code == "INVALID_MESSAGE"
            assert "asr_languages" in error.message
            # Separators in a tag are those of the tag: the language is what stands before them.
            await world.node("n2", language_capabilities=languages(("zh-en", "fr_CA")))
            pools = world.app.parts.dispatcher.view.pools
            assert [group.pool.name for group in pools.planned()] == ["fr-zh"]
            worse = await world.node("n3", language_capabilities=languages(("zh-{en}", "fr")))
            assert worse.all(Error)[0].code == "INVALID_MESSAGE"

    run_in_fake_time(story())


def test_instances_over_one_store_come_to_the_same_pools() -> None:
    async def story() -> None:
        async with a_cluster(3, **_ON) as members:
            for number, member in enumerate(members):
                await member.node(f"n{number}", language_capabilities=[_EN_PT, _PT_EN, languages(("de", "fr"))][number])

            def plans() -> list[list[str]]:
                return [[group.pool.name for group in m.app.parts.dispatcher.view.pools.planned()] for m in members]

            await until(lambda: plans() == [["en-pt", "de-fr"]] * 3)

    run_in_fake_time(story())


def test_the_store_shows_the_pools_and_who_is_in_them_within_a_refresh() -> None:
    async def story() -> None:
        async with a_cluster(3, **_ON) as (a, b, c):
            store = a.app.parts.store

            async def shown(*names: str) -> list[set[str]]:
                await asyncio.sleep(2.5)
                return [set(await store.pool_members(name)) for name in names]

            nodes = [await member.node(f"n{n}", language_capabilities=_EN_PT) for n, member in enumerate((a, b, c))]
            german = await b.node("n3", language_capabilities=languages(("de", "fr")))
            assert await shown("en-pt", "de-fr") == [{"n0", "n1", "n2"}, {"n3"}]
            plan = await store.pool_plan()
            assert plan is not None
            assert [pool.name for pool in plan.pools] == ["de-fr", "en-pt"]
            # A node changes, one moves to another instance, one is lost with its instance.
            german.heartbeat(language_capabilities=_PT_EN)
            nodes[0].hang_up()
            await b.node("n0", language_capabilities=_EN_PT)
            assert await shown("en-pt", "de-fr") == [{"n0", "n1", "n2", "n3"}, set()]
            c.die()
            await asyncio.sleep(30)
            assert await shown("en-pt") == [{"n0", "n1", "n3"}]

    run_in_fake_time(story())


def test_what_is_wrong_on_the_store_is_put_right() -> None:
    async def story() -> None:
        async with a_cluster(2, **_ON) as (a, b):
            await a.node("n1", language_capabilities=_EN_PT)
            await b.node("n2", language_capabilities=_EN_PT)
            await asyncio.sleep(3)
            wrong = PoolChange("en-pt", (NodeId("nobody"),), (NodeId("n1"), NodeId("n2")))
            await a.app.parts.store.publish_pools((), [wrong], 600_000, renew=False)
            await asyncio.sleep(10)
            assert await a.app.parts.store.pool_members("en-pt") == {"n1", "n2"}

    run_in_fake_time(story())


def test_a_decision_can_be_explained_and_what_would_be_decided_simulated() -> None:
    async def story() -> None:
        async with a_world(**_ON) as world:
            node = await world.node("n1", slots=2, language_capabilities=_EN_PT)
            session = await world.session()
            session.speak()
            job = await node.gets_job(within_s=0.1)
            dispatcher, clock = world.app.parts.dispatcher, world.app.parts.clock
            decision = dispatcher.rankings.decision(JobId(job.job_id))
            assert decision is not None
            assert isinstance(decision.found, Ranking)
            assert (decision.found.pool, decision.found.candidates[0].node_id) == ("en-pt", "n1")
            said = dispatcher.rankings.simulate(a_need(services=("nmt", "tts")), "s1", 7, clock.now_ms())
            assert (said.selected, said.ranking, said.sampled[0].used) == ("en-pt", ("n1",), 1)
            assert world.slots_held("n1") == 1

    run_in_fake_time(story())


def test_the_capacity_of_a_pool_is_measured_from_its_jobs() -> None:
    async def story() -> None:
        async with a_world(**_ON) as world:
            node = await world.node("n1", slots=1, language_capabilities=_EN_PT)
            session = await world.session()
            for number in range(1, 31):
                session.speak()
                job = await node.gets_job(number)
                await asyncio.sleep(0.5)
                node.finish(job)
                await asyncio.sleep(0.5)
            dispatcher, clock = world.app.parts.dispatcher, world.app.parts.clock
            (capacity,) = dispatcher.demands.capacities(clock.now_ms(), target_s=0.1)
            assert (capacity.pool, capacity.slots) == ("en-pt", 1)
            assert capacity.demand.service_s == pytest.approx(0.5, abs=0.02)
            assert capacity.demand.offered == pytest.approx(0.5, abs=0.1)
            assert capacity.slots_wanted == 3

    run_in_fake_time(story())


def test_at_the_start_the_log_says_that_there_are_two_levels(capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        async with a_world(**_ON):
            pass

    run_in_fake_time(story())
    said = "".join(capsys.readouterr())
    assert "Phase3 two-level scheduling" in said
    assert "two_level" in said
    assert "sample_size" in said
