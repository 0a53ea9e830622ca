"""What may a client say that is wrong, over a real socket? Anything: it is told so, and nobody else notices."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import msgspec
import pytest

from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import JobAssign
from dragoman.protocol.session_messages import (
    ClientJobCancel,
    ServerHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInbound,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    Utterance,
)
from tests.e2e.bad_fields import HOSTILE_TEXTS, bad_fields, nested, smallest, spoiled, tag_of, text_fields
from tests.e2e.peers import a_scene, ws_frame
from tests.support.builders import a_chunk, a_client_heartbeat, a_session_init, a_text, an_utterance

pytestmark = pytest.mark.slow  # a thousand messages each

KINDS: tuple[type[msgspec.Struct], ...] = get_args(SessionInbound)
LATER_KINDS = [kind for kind in KINDS if kind is not SessionInit]
FORMATS = pytest.mark.parametrize("is_binary", [False, True], ids=["json", "msgpack"])


@FORMATS
@pytest.mark.parametrize("kind", KINDS, ids=tag_of)
def test_a_field_that_is_missing_or_ill_typed_is_named_and_the_session_goes_on(
    kind: type[msgspec.Struct], is_binary: bool
) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            good = smallest(kind, session_id=pair.session.session_id, utterance_index=5000)
            for bad in bad_fields(kind, is_binary=is_binary):
                await pair.session.say(spoiled(good, bad, kind))
                error = await pair.session.hears(Error)
                assert (error.code, bad.name in error.message) == ("INVALID_MESSAGE", True), f"{bad}: {error}"
                assert len(error.message) < 600
                await pair.translates()
                await scene.bystanders.translates()

    asyncio.run(story())


@FORMATS
def test_a_session_init_with_a_bad_field_is_answered_and_the_client_sent_away(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            for bad in bad_fields(SessionInit, is_binary=is_binary):
                session = await scene.a_session(is_binary=is_binary)
                await session.say(spoiled(smallest(SessionInit), bad, SessionInit))
                error = await session.is_sent_away()
                assert (error.code, bad.name in error.message) == ("INVALID_MESSAGE", True), f"{bad}: {error}"

    asyncio.run(story())


@FORMATS
@pytest.mark.parametrize("kind", LATER_KINDS, ids=tag_of)
def test_hostile_text_in_any_field_is_text(kind: type[msgspec.Struct], is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene(is_binary=not is_binary) as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            session = pair.session
            index = 5000
            good = smallest(kind, session_id=session.session_id, utterance_index=index, src_lang="en", tgt_lang="ja")
            for field in text_fields(kind):
                for text in HOSTILE_TEXTS:
                    if kind is SessionClose and field == "reason":
                        continue  # it closes, and is a test of its own
                    await session.say(good | {field: text})
                    await session.say(a_client_heartbeat(session_id=session.session_id))
                    await session.hears(ServerHeartbeat)
                    await pair.translates()
                await scene.bystanders.translates()

    asyncio.run(story())


@pytest.mark.parametrize("field", text_fields(SessionInit))
def test_hostile_text_in_a_session_init_opens_a_session_or_is_refused(field: str) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for text in HOSTILE_TEXTS:
                session = await scene.a_session()
                await session.say(smallest(SessionInit) | {field: text})
                assert isinstance(await session.next(), SessionInitAck | Error)
                await session.close()
                await scene.bystanders.translates()

    asyncio.run(story())


def test_a_session_closed_for_a_hostile_reason_is_closed() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            for text in HOSTILE_TEXTS:
                session = await scene.a_session()
                await session.open()
                await session.say(SessionClose(session_id=session.session_id, reason=text))
                code, heard = await session.is_closed_with()
                assert (code, [type(message) for message in heard]) == (1000, [SessionCloseAck])

    asyncio.run(story())


def test_a_word_that_is_none_of_those_wanted_is_answered_with_those() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            session = await scene.a_session()
            await session.open()
            await session.say(smallest(Utterance, session_id=session.session_id) | {"audio_format": "mp3"})
            error = await session.hears(Error)
            assert error.message.endswith("at `audio_format`; wanted 'opus' or 'pcm16' or 'text' or 'wav'")

    asyncio.run(story())


# --- out of order


@FORMATS
@pytest.mark.parametrize("kind", LATER_KINDS, ids=tag_of)
def test_whatever_comes_before_the_session_init_ends_the_connection(
    kind: type[msgspec.Struct], is_binary: bool
) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            session = await scene.a_session(is_binary=is_binary)
            await session.say(smallest(kind, session_id=scene.bystanders.session.session_id))
            error = await session.is_sent_away()
            assert (error.code, "session_init" in error.message) == ("INVALID_MESSAGE", True)

    asyncio.run(story())


@pytest.mark.parametrize(
    "frame", ["", "{", "null", "[]", '"session_init"', "\x00", b"\x80", '{"type":"telepathy"}', "{}"]
)
def test_rubbish_before_the_session_init_ends_the_connection(frame: str | bytes) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            session = await scene.a_session()
            await session.say_raw(frame)
            assert (await session.is_sent_away()).code == "INVALID_MESSAGE"

    asyncio.run(story())


@FORMATS
def test_a_second_session_init_is_refused_and_the_session_goes_on(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            for again in (a_session_init(), a_session_init(resume_token=pair.session.resume_token)):
                await pair.session.say(again)
                error = await pair.session.hears(Error)
                assert (error.code, "session_init" in error.message) == ("INVALID_MESSAGE", True)
                await pair.translates()

    asyncio.run(story())


def test_two_session_inits_at_once_open_one_session() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            session = await scene.a_session()
            await session.say(a_session_init())
            await session.say(a_session_init())
            assert isinstance(await session.next(), SessionInitAck)
            assert isinstance(await session.next(), Error)
            assert len(scene.app.parts.router.sessions) == 2

    asyncio.run(story())


def test_what_is_said_after_the_goodbye_is_not_heard() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            session = pair.session
            await session.say(SessionClose(session_id=session.session_id, reason="bye"))
            await session.speak("too late", tgt_lang="pt")
            code, heard = await session.is_closed_with()
            assert (code, [type(message) for message in heard]) == (1000, [SessionCloseAck])
            assert not scene.app.parts.dispatcher.jobs

    asyncio.run(story())


# --- of somebody else


@FORMATS
@pytest.mark.parametrize("kind", [kind for kind in LATER_KINDS if "session_id" in kind.__struct_fields__], ids=tag_of)
def test_the_session_of_somebody_else_is_out_of_reach(kind: type[msgspec.Struct], is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            for other in (scene.bystanders.session.session_id, "s-0", pair.session.session_id.upper()):
                await pair.session.say(smallest(kind, session_id=other, src_lang="en", tgt_lang="de"))
                assert (await pair.session.hears(Error)).code == "INVALID_SESSION"
                await pair.session.hears_nothing_else()
                await pair.translates()
                await scene.bystanders.translates()

    asyncio.run(story())


def test_the_job_of_somebody_else_cannot_be_cancelled() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair, others = await scene.a_pair("pt"), scene.bystanders
            await others.session.speak("mine", tgt_lang="de")
            job = await others.node.hears(JobAssign)
            await pair.session.say(ClientJobCancel(job_id=job.job_id))
            error = await pair.session.hears(Error)
            assert (error.code, "job_id" in error.message) == ("INVALID_MESSAGE", True)
            await others.node.finish(job, "done")
            assert (await others.session.hears(TranslationResult)).text_translated == "done"

    asyncio.run(story())


# --- utterances that are none


BAD_SPEECH: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"audio": b""}, "audio"),
    "half a sample": ({"audio": b"abc"}, "audio"),
    "a wav that is none": ({"audio": b"not a wav file at all", "audio_format": "wav"}, "audio"),
    "a wav of nothing but a header": ({"audio": b"RIFF\xff\xff\xff\xffWAVE", "audio_format": "wav"}, "audio"),
    "a wav that lies about its chunks": (
        {"audio": b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff" + bytes(64), "audio_format": "wav"},
        "audio",
    ),
    "a wav of a million empty chunks": (
        {"audio": b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 500_000, "audio_format": "wav"},
        "audio",
    ),
    "text that is no UTF-8": ({"audio": b"\xff\xfe\xfd", "audio_format": "text"}, "audio"),
    "blank text": ({"audio": b" \n\t", "audio_format": "text"}, "audio"),
    "an empty text": ({"audio": b"", "audio_format": "text"}, "audio"),
    "no sample rate": ({"sample_rate": 0}, "sample_rate"),
    "a sample rate out of this world": ({"sample_rate": 2**53}, "sample_rate"),
    "an opus of nothing": ({"audio": b"", "audio_format": "opus"}, "audio"),
    "a language that is none": ({"src_lang": "no language!"}, "src_lang"),
    "into any language": ({"tgt_lang": "auto"}, "tgt_lang"),
    "two ways with one language": ({"mode": "two_way_auto", "lang_a": "en", "lang_b": "en"}, "lang_b"),
    "two ways with none": ({"mode": "two_way_auto"}, "lang_a"),
    "no service at all": (
        {"pipeline": {"use_asr": False, "use_nmt": False, "use_tts": False}},
        "pipeline",
    ),
    "an index too far ahead": ({"utterance_index": 2**53}, "utterance_index"),
    "features too deep": ({"features": {"a": nested(200)}}, "features"),
}


@FORMATS
@pytest.mark.parametrize("name", BAD_SPEECH)
def test_an_utterance_that_makes_no_sense_is_answered_with_its_index(name: str, is_binary: bool) -> None:
    async def story() -> None:
        fields, wanted = BAD_SPEECH[name]
        async with a_scene(is_binary=not is_binary) as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            session = pair.session
            index = fields.get("utterance_index", 0) or next(session.indexes)
            good = msgspec.to_builtins(
                an_utterance(session_id=session.session_id, utterance_index=index), builtin_types=(bytes,)
            )
            await session.say(good | fields)
            error = await session.hears(Error)
            assert (error.code, wanted in error.message) == ("INVALID_MESSAGE", True), error
            assert error.details == {"utterance_index": index, "retryable": False}
            await session.hears_nothing_else()
            await pair.translates()

    asyncio.run(story())


def test_audio_that_is_no_base64_is_answered_with_its_index() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            for audio in ("%%%%", "QUJD\n", "QUJDR", "QUJDRA=", "-_-_", "é", "=", "QQ==QQ=="):
                index = next(pair.session.indexes)
                good = msgspec.to_builtins(an_utterance(session_id=pair.session.session_id, utterance_index=index))
                await pair.session.say(good | {"audio": audio})
                error = await pair.session.hears(Error)
                assert (error.code, "audio" in error.message) == ("INVALID_MESSAGE", True), audio
                assert (error.details or {})["utterance_index"] == index
                await pair.translates()

    asyncio.run(story())


@FORMATS
def test_a_chunk_of_half_a_sample_is_refused_and_the_stream_goes_on(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            session = pair.session
            await session.say(a_chunk(0, b"ab", session_id=session.session_id))
            await session.say(a_chunk(1, b"abc", session_id=session.session_id))
            error = await session.hears(Error)
            assert (error.code, "payload" in error.message) == ("INVALID_MESSAGE", True)
            await session.say(a_chunk(2, b"cd", session_id=session.session_id, is_final=True))
            job = await pair.node.hears(JobAssign)
            assert job.audio == b"abcd"
            await pair.node.finish(job, "four bytes")
            assert (await session.hears(TranslationResult)).text_translated == "four bytes"

    asyncio.run(story())


# --- frames and types


@FORMATS
def test_a_frame_of_the_wrong_kind_is_a_bad_message(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            heartbeat = a_client_heartbeat(session_id=pair.session.session_id)
            for frame in (msgspec.json.encode(heartbeat), msgspec.msgpack.encode(heartbeat)):
                await pair.session.say_raw(frame, text=is_binary)
                error = await pair.session.hears(Error)
                assert (error.code, "wrong kind of frame" in error.message) == ("INVALID_MESSAGE", True)
                await pair.translates()

    asyncio.run(story())


@FORMATS
def test_the_other_format_in_the_right_kind_of_frame_is_a_bad_message(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            heartbeat = a_client_heartbeat(session_id=pair.session.session_id)
            other = msgspec.json if is_binary else msgspec.msgpack
            await pair.session.say_raw(other.encode(heartbeat), text=not is_binary)
            assert (await pair.session.hears(Error)).code == "INVALID_MESSAGE"
            await pair.translates()

    asyncio.run(story())


@FORMATS
def test_an_unknown_type_is_answered_once_and_then_ignored(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            session = pair.session
            for kind in ("telepathy", "job_result", "SESSION_INIT", "", "x" * 1000, "\x00"):
                await session.say({"type": kind, "session_id": session.session_id})
                error = await session.hears(Error)
                assert error.code == "UNSUPPORTED_FEATURE"
                for _ in range(30):
                    await session.say({"type": kind})
                await session.hears_nothing_else()
            await pair.translates()

    asyncio.run(story())


@FORMATS
def test_fields_that_nobody_knows_are_passed_over(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            strange: Any
            for strange in (None, True, 2**63, -1.5, "x" * 100_000, [[[]]] * 100, {"type": "utterance"}):
                heartbeat = msgspec.to_builtins(a_client_heartbeat(session_id=pair.session.session_id))
                await pair.session.say(heartbeat | {"new_field": strange, "": strange})
                assert isinstance(await pair.session.next(), ServerHeartbeat)
            await pair.translates()

    asyncio.run(story())


# --- again and again


@FORMATS
def test_twenty_bad_messages_in_a_row_are_too_many(is_binary: bool) -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt", is_binary=is_binary)
            for _ in range(3):
                for _ in range(19):
                    await pair.session.say({"type": "client_heartbeat"})
                    assert (await pair.session.hears(Error)).code == "INVALID_MESSAGE"
                await pair.translates()
            for _ in range(20):
                await pair.session.say(["no object"])
            code, heard = await pair.session.is_closed_with()
            assert (code, [message.code for message in heard]) == (1008, ["INVALID_MESSAGE"] * 20)

    asyncio.run(story())


def test_who_was_sent_away_for_bad_messages_is_not_heard_any_more() -> None:
    async def story() -> None:
        async with a_scene() as scene:
            pair = await scene.a_pair("pt")
            raw = await scene.upgraded()
            init = msgspec.json.encode(a_session_init(tgt_lang="pt", resume_token=pair.session.resume_token))
            speech = msgspec.json.encode(a_text("too late", session_id=pair.session.session_id))
            raw.write(ws_frame(init) + ws_frame(b"{") * 20 + ws_frame(speech) + ws_frame(b"{") * 20)
            assert await raw.close_code() == 1008
            assert not scene.app.parts.dispatcher.jobs

    asyncio.run(story())
