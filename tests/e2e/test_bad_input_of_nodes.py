"""What may a node say that is wrong, over a real socket? Anything: it is told so, and no job goes astray."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import msgspec
import pytest

from dragoman.edge import node_connection
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import (
    JobAck,
    JobAssign,
    JobStarted,
    NodeAsrPartial,
    NodeHeartbeat,
    NodeInbound,
    NodeRegister,
)
from dragoman.protocol.node_messages import NodeError as Complaint
from dragoman.protocol.node_messages import NodeRegisterAck as RegisterAck
from dragoman.protocol.session_messages import TranslationResult
from tests.e2e.bad_fields import HOSTILE_TEXTS, bad_fields, nested, smallest, spoiled, tag_of, text_fields
from tests.e2e.peers import Pair, Scene, a_scene, until, ws_frame
from tests.support.builders import (
    a_job_result,
    a_node_heartbeat,
    a_node_register,
    a_usage,
    language_declaration,
)

pytestmark = pytest.mark.slow  # a thousand messages each

KINDS: tuple[type[msgspec.Struct], ...] = get_args(NodeInbound)
LATER_KINDS = [kind for kind in KINDS if kind is not NodeRegister]
FORMATS = pytest.mark.parametrize("is_binary", [False, True], ids=["json", "msgpack"])
ALIEN = language_declaration(asr_languages=["no language!"])


LONG = (NodeRegister, NodeHeartbeat)


@FORMATS
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in LONG else ()) for kind in KINDS], ids=tag_of
)
def test_a_field_that_is_missing_or_ill_typed_is_named_and_the_node_goes_on(
    kind: type[msgspec.Struct], is_binary: bool
) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            good = smallest(kind, node_id=pair.node.node_id)
            for bad in bad_fields(kind, is_binary=is_binary):
                await pair.node.say(spoiled(good, bad, kind))
                error = await pair.node.hears(Error)
                assert (error.code, bad.name in error.message) == ("INVALID_MESSAGE", True), f"{bad}: {error}"
                assert len(error.message) < 600
                await pair.translates()
                await scene.bystanders.translates()

    asyncio.run(story())


@FORMATS
def test_a_node_register_with_a_bad_field_is_answered_and_the_node_sent_away(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            for bad in bad_fields(NodeRegister, is_binary=is_binary):
                if len(bad.path) > 1:
                    continue
                node = await scene.a_node(is_binary=is_binary)
                await node.say(spoiled(smallest(NodeRegister), bad, NodeRegister))
                error = await node.is_sent_away()
                assert (error.code, bad.name in error.message) == ("INVALID_MESSAGE", True), f"{bad}: {error}"

    asyncio.run(story())


@FORMATS
@pytest.mark.parametrize("kind", LATER_KINDS, ids=tag_of)
def test_hostile_text_in_any_field_is_text(kind: type[msgspec.Struct], is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            good = smallest(kind, node_id=pair.node.node_id)
            for field in text_fields(kind):
                for text in HOSTILE_TEXTS:
                    if field == "node_id":
                        continue  # that is somebody else's name, and has a test of its own
                    await pair.node.say(good | {field: text})
                    await pair.node.beat()
                    await pair.translates()
                await scene.bystanders.translates()

    asyncio.run(story())


@pytest.mark.parametrize("field", text_fields(NodeRegister))
def test_hostile_text_in_a_node_register_makes_a_node_or_is_refused(field: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for text in HOSTILE_TEXTS:
                node = await scene.a_node()
                await node.say(smallest(NodeRegister) | {field: text})
                assert isinstance(await node.next(), RegisterAck | Error)
                await node.close()
                await scene.bystanders.translates()

    asyncio.run(story())


@pytest.mark.parametrize(
    "details",
    [
        {"service_id": ["asr-1"]},
        {"service_id": {"a": 1}},
        {"service_id": "x" * 100_000},
        {"model_id": 7},
        {"": None},
        nested(50),
    ],
)
def test_a_complaint_with_hostile_details_is_a_complaint(details: dict[str, Any]) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            complaint = Complaint(
                node_id=pair.node.node_id, code="MODEL_NOT_AVAILABLE", message="x" * 100_000, details=details
            )
            for _ in range(40):
                await pair.node.say(complaint)
            await pair.translates()

    asyncio.run(story())


# --- out of order


@FORMATS
@pytest.mark.parametrize("kind", LATER_KINDS, ids=tag_of)
def test_whatever_comes_before_the_node_register_ends_the_connection(
    kind: type[msgspec.Struct], is_binary: bool
) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            node = await scene.a_node(is_binary=is_binary)
            await node.say(smallest(kind, node_id=scene.bystanders.node.node_id))
            error = await node.is_sent_away()
            assert (error.code, "node_register" in error.message) == ("INVALID_MESSAGE", True)

    asyncio.run(story())


def test_a_session_that_takes_the_path_of_the_nodes_is_sent_away() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            node = await scene.a_node()
            await node.say({"type": "session_init"})
            assert (await node.is_sent_away()).code == "INVALID_MESSAGE"

    asyncio.run(story())


@FORMATS
def test_a_node_cannot_change_its_name(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            await pair.node.say(a_node_register("another name"))
            error = await pair.node.hears(Error)
            assert (error.code, "node_id" in error.message) == ("INVALID_MESSAGE", True)
            await pair.translates()

    asyncio.run(story())


@FORMATS
def test_an_unknown_type_is_answered_once_and_then_ignored(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            for kind in ("telepathy", "session_init", ""):
                await pair.node.say({"type": kind})
                assert (await pair.node.hears(Error)).code == "UNSUPPORTED_FEATURE"
                for _ in range(30):
                    await pair.node.say({"type": kind})
            await pair.session.speak("hello", tgt_lang="pt")
            job = await pair.node.next()
            assert isinstance(job, JobAssign), job

    asyncio.run(story())


@FORMATS
def test_a_frame_of_the_wrong_kind_is_a_bad_message(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            heartbeat = a_node_heartbeat(pair.node.node_id)
            for frame in (msgspec.json.encode(heartbeat), msgspec.msgpack.encode(heartbeat)):
                await pair.node.say_raw(frame, text=is_binary)
                error = await pair.node.hears(Error)
                assert (error.code, "wrong kind of frame" in error.message) == ("INVALID_MESSAGE", True)
                await pair.translates()

    asyncio.run(story())


# --- again and again


BAD_AGAIN: dict[str, Any] = {
    "a field missing": {"type": "node_heartbeat"},
    "somebody else's name": a_node_heartbeat("somebody else"),
    "a language that is none, in a heartbeat": a_node_heartbeat("node pt", language_capabilities=ALIEN),
    "a language that is none, in a registration": a_node_register("node pt", language_capabilities=ALIEN),
}


@pytest.mark.parametrize("name", BAD_AGAIN)
def test_twenty_bad_messages_in_a_row_are_too_many(name: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            for _ in range(2):
                for _ in range(19):
                    await pair.node.say(BAD_AGAIN[name])
                    error = await pair.node.hears(Error)
                    assert error.code == "INVALID_MESSAGE"
                await pair.translates()
            for _ in range(20):
                await pair.node.say(BAD_AGAIN[name])
            code, heard = await pair.node.is_closed_with()
            assert (code, [message.code for message in heard]) == (1008, ["INVALID_MESSAGE"] * 20)

    asyncio.run(story())


def test_a_node_that_floods_with_heartbeats_holds_nobody_up() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")

            async def flood() -> None:
                while True:
                    await pair.node.beat()
                    await asyncio.sleep(0)  # the server lives in this loop too, and must get its turn
                    await asyncio.sleep(0)

            flooding = asyncio.create_task(flood())
            for _ in range(20):
                await scene.bystanders.translates()
            flooding.cancel()
            await asyncio.wait([flooding])
            await pair.translates()

    asyncio.run(story())


def test_a_node_whose_heartbeats_are_as_long_as_may_be_holds_nobody_up() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            for _ in range(3):
                await pair.node.beat(running_job_ids=[f"job-{number}" for number in range(100_000)])
                await scene.bystanders.translates()
            await pair.translates()

    asyncio.run(story())


# --- of somebody else


@FORMATS
@pytest.mark.parametrize("kind", [kind for kind in LATER_KINDS if "node_id" in kind.__struct_fields__], ids=tag_of)
def test_a_node_cannot_speak_for_another(kind: type[msgspec.Struct], is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            await pair.node.say(smallest(kind) | {"node_id": scene.bystanders.node.node_id})
            error = await pair.node.hears(Error)
            assert (error.code, "node_id" in error.message) == ("INVALID_MESSAGE", True)
            await pair.translates()
            await scene.bystanders.translates()

    asyncio.run(story())


async def _a_job_of_the_bystanders(scene: Scene) -> JobAssign:
    await scene.bystanders.session.speak("hello", tgt_lang="de")
    return await scene.bystanders.node.hears(JobAssign)


def _about(job: JobAssign, node_id: str, **fields: Any) -> dict[str, Any]:
    about = {"job_id": job.job_id, "attempt_id": job.attempt_id, "node_id": node_id}
    return about | {"session_id": job.session_id, "trace_id": job.trace_id} | fields


@FORMATS
def test_a_node_that_answers_for_the_job_of_another_is_not_heard(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            job = await _a_job_of_the_bystanders(scene)
            about = _about(job, pair.node.node_id)
            await pair.node.say(JobAck(**about))
            await pair.node.say(JobStarted(**about))
            partial = {name: value for name, value in about.items() if name != "attempt_id"}
            await pair.node.say(NodeAsrPartial(**partial, utterance_index=0, text="forged", is_final=True))
            await pair.node.say(a_job_result(**about, text_translated="forged"))
            await pair.node.say(a_job_result(**about, success=False))
            await pair.translates()
            await scene.bystanders.node.finish(job, "true")
            result = await scene.bystanders.session.hears(TranslationResult)
            assert (result.utterance_index, result.text_translated) == (0, "true")
            await scene.bystanders.session.hears_nothing_else()

    asyncio.run(story())


@FORMATS
def test_a_result_counts_once_and_only_for_the_attempt_that_runs(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            await pair.session.speak("hello", tgt_lang="pt")
            job = await pair.node.hears(JobAssign)
            for attempt in (0, 2, 2**53):
                await pair.node.finish(job, "wrong attempt", attempt_id=attempt)
            await pair.node.finish(job, "first")
            await pair.node.finish(job, "second")
            await pair.node.finish(job, "third", success=False)
            assert (await pair.session.hears(TranslationResult)).text_translated == "first"
            await pair.translates()

    asyncio.run(story())


def test_a_result_goes_to_the_session_that_asked_whatever_the_node_says() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            await pair.session.speak("hello", tgt_lang="pt")
            job = await pair.node.hears(JobAssign)
            other = scene.bystanders.session.session_id
            await pair.node.finish(job, "done", session_id=other, utterance_index=77, trace_id="forged")
            result = await pair.session.hears(TranslationResult)
            assert (result.session_id, result.utterance_index) == (pair.session.session_id, 0)
            assert result.trace_id == job.trace_id

    asyncio.run(story())


BAD_RESULTS: dict[str, tuple[dict[str, Any], str]] = {
    "audio that is no base64": ({"tts_audio": "%%%"}, "tts_audio"),
    "success that is text": ({"success": "yes"}, "success"),
    "an error that is text": ({"error": "it went wrong"}, "error"),
    "more than a message may hold": ({"extra": {"a": [0] * 60_000}}, "extra"),
    "nested too deep": ({"segments_meta": nested(200)}, "segments_meta"),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_result_that_is_refused_leaves_the_job_to_be_answered_again(name: str) -> None:
    async def story() -> None:
        fields, wanted = BAD_RESULTS[name]
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            await pair.session.speak("hello", tgt_lang="pt")
            job = await pair.node.hears(JobAssign)
            good = msgspec.to_builtins(a_job_result(**_about(job, pair.node.node_id)))
            await pair.node.say(good | fields)
            error = await pair.node.hears(Error)
            assert (error.code, wanted in error.message) == ("INVALID_MESSAGE", True)
            assert (error.details or {})["job_id"] == job.job_id
            await pair.node.finish(job, "in order")
            assert (await pair.session.hears(TranslationResult)).text_translated == "in order"

    asyncio.run(story())


@pytest.mark.parametrize("session_is_binary", [False, True], ids=["to json", "to msgpack"])
def test_what_only_messagepack_can_say_reaches_every_session(session_is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            node, session = await scene.a_node(is_binary=True), await scene.a_session(is_binary=session_is_binary)
            await node.register("n", "pt")
            await session.open()
            for strange in ({"quality_score": float("nan")}, {"extra": {"a": float("inf")}}, {"extra": {"a": b"\xff"}}):
                await session.speak("hello")
                job = await node.hears(JobAssign)
                await node.finish(job, "done", **strange)
                assert (await session.hears(TranslationResult)).text_translated == "done"

    asyncio.run(story())


# --- one name, two nodes


def test_the_name_of_a_live_node_is_refused_and_the_first_goes_on() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            thief = await scene.a_node()
            await thief.say(a_node_register(pair.node.node_id))
            hearing = asyncio.create_task(thief.hears(Error))
            await pair.translates()
            assert (await hearing).code == "NODE_ID_CONFLICT"
            await pair.translates()

    asyncio.run(story())


async def _a_dead_node(scene: Scene) -> None:
    """Registered, and never heard of again: it does not even answer pings."""
    dead = await scene.upgraded("/ws/node")
    dead.write(ws_frame(msgspec.json.encode(a_node_register("same"))))
    await until(lambda: "same" in scene.app.parts.open.by_node)


def test_of_two_that_want_the_name_of_a_dead_node_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_connection, "_PROBE_MS", 100)

    async def story() -> None:
        async with a_scene() as scene:
            await _a_dead_node(scene)
            newcomers = [await scene.a_node() for _ in range(3)]
            languages = language_declaration(supported_language_pairs=[("en", "pt")])
            for node in newcomers:
                await node.say(a_node_register("same", language_capabilities=languages))
            told = await asyncio.gather(*(node.next() for node in newcomers))
            names = sorted(getattr(message, "code", "registered") for message in told)
            assert names == ["NODE_ID_CONFLICT", "NODE_ID_CONFLICT", "registered"]
            winner = next(
                node for node, message in zip(newcomers, told, strict=True) if isinstance(message, RegisterAck)
            )
            winner.node_id = "same"
            await winner.beat()
            session = await scene.a_session()
            await session.open()
            await Pair(session, winner, "pt").translates()

    asyncio.run(story())


# --- what it says of itself


def test_a_node_that_has_no_room_gets_no_jobs_and_hurts_nobody() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            node, session = await scene.a_node(), await scene.a_session()
            await node.say(a_node_register("n", max_concurrent_jobs=0))
            node.node_id = (await node.hears(RegisterAck)).node_id
            await node.beat()
            await session.open()
            await session.speak("hello", deadline_ms=50)
            assert (await session.hears(Error)).code in ("NO_AVAILABLE_NODE", "DEADLINE_EXCEEDED")

    asyncio.run(story())


@pytest.mark.parametrize("percent", [100.1, 1e300, float("inf")])
def test_figures_that_cannot_be_true_make_no_node_ready(percent: float) -> None:
    async def story() -> None:
        async with a_scene(is_binary=True) as scene:
            pair = await scene.a_pair("pt", is_binary=True)
            await pair.node.beat(resource_usage=a_usage(cpu_percent=percent))
            await scene.bystanders.translates()
            await pair.node.beat()
            await pair.translates()

    asyncio.run(story())
