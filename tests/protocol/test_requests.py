"""What does an utterance ask for, and which field is to blame when it asks for the impossible?"""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.job import Speech
from dragoman.core.language import AUTO, Language
from dragoman.protocol.codec import FormatError
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.requests import read_init, read_utterance
from dragoman.protocol.session_messages import SessionInit, Utterance
from tests.support.builders import a_session_init, a_text, an_utterance

NO_DEFAULTS = a_session_init()
SWITCHES = ("use_asr", "use_nmt", "use_tts", "use_semantic", "use_tone")


def read(utterance: Utterance, init: SessionInit = NO_DEFAULTS) -> Speech:
    return read_utterance(utterance, init, None).speech


def needed(utterance: Utterance, init: SessionInit = NO_DEFAULTS, tenant: str | None = None) -> Need:
    return read_utterance(utterance, init, None if tenant is None else TenantId(tenant)).need


def refused(field: str, utterance: Utterance, init: SessionInit = NO_DEFAULTS) -> str:
    with pytest.raises(FormatError, match=rf"^{field}: ") as caught:
        read_utterance(utterance, init, None)
    return str(caught.value)


def languages(*pairs: tuple[str, str]) -> tuple[tuple[Language, Language], ...]:
    return tuple((Language(src), Language(tgt)) for src, tgt in pairs)


# --- which services


@pytest.mark.parametrize("pipeline", [None, Pipeline()])
def test_speech_is_heard_translated_and_spoken(pipeline: Pipeline | None) -> None:
    assert read(an_utterance(pipeline=pipeline)).services == {"asr", "nmt", "tts"}


@pytest.mark.parametrize("pipeline", [None, Pipeline()])
def test_text_need_not_be_heard(pipeline: Pipeline | None) -> None:
    assert read(a_text(pipeline=pipeline)).services == {"nmt", "tts"}


@pytest.mark.parametrize("is_text", [False, True])
@pytest.mark.parametrize("choice", list(itertools.product([None, False, True], repeat=5)))
def test_every_pipeline_is_what_it_says_or_refused(choice: tuple[bool | None, ...], is_text: bool) -> None:
    utterance = (a_text if is_text else an_utterance)(pipeline=Pipeline(**dict(zip(SWITCHES, choice, strict=True))))
    defaults = (not is_text, True, True, False, False)
    wanted = [default if said is None else said for said, default in zip(choice, defaults, strict=True)]
    has_asr, has_nmt, has_tts, *_ = wanted
    is_impossible = not any(wanted) or (is_text and has_asr) or (not is_text and not has_asr and (has_nmt or has_tts))
    if is_impossible:
        refused("pipeline(.use_asr)?", utterance)
        return
    services = {switch.removeprefix("use_") for switch, is_on in zip(SWITCHES, wanted, strict=True) if is_on}
    assert read(utterance).services == services
    assert needed(utterance).services == services


# --- what is left out is as in session_init


@pytest.mark.parametrize(
    ("field", "default", "own"),
    [
        ("dialect", "BR", "PT"),
        ("features", {"a": 1}, {}),
        ("enable_streaming_asr", True, False),
        ("partial_update_interval_ms", 100, 0),
    ],
)
def test_what_an_utterance_leaves_out_is_as_in_session_init(field: str, default: Any, own: Any) -> None:
    init = a_session_init(**{field: default})
    assert getattr(read(an_utterance()), field) is None
    assert getattr(read(an_utterance(), init), field) == default
    assert getattr(read(an_utterance(**{field: own}), init), field) == own


def test_the_list_of_languages_is_as_in_session_init_unless_there_is_another() -> None:
    init = a_session_init(auto_langs=["de", "fr"])
    assert read(an_utterance(), init).auto_langs == ("de", "fr")
    assert read(an_utterance(auto_langs=[]), init).auto_langs == ()


def test_the_mode_is_as_in_session_init_unless_there_is_another() -> None:
    init = a_session_init(mode="two_way_auto", lang_a="en", lang_b="de")
    assert needed(an_utterance(), init).pairs == languages(("en", "de"), ("de", "en"))
    assert needed(an_utterance(lang_b="fr"), init).pairs == languages(("en", "fr"), ("fr", "en"))
    assert needed(an_utterance(mode="one_way"), init).pairs == languages(("en", "pt"))


def test_the_rest_goes_to_the_node_as_it_came() -> None:
    speech = read(an_utterance(src_lang="en-GB", tgt_lang="pt_BR", sample_rate=48_000, manual_cut=True))
    assert (speech.src_lang, speech.tgt_lang, speech.sample_rate) == ("en-GB", "pt_BR", 48_000)
    assert (speech.audio, speech.audio_format) == (an_utterance().audio, "pcm16")
    assert (speech.is_manual_cut, speech.is_pause_triggered, speech.is_timeout_triggered) == (True, False, False)


# --- which languages


def test_one_way_is_one_pair() -> None:
    assert needed(an_utterance(src_lang="zh-CN", tgt_lang="pt-BR")).pairs == languages(("zh", "pt"))


def test_two_ways_are_both_pairs() -> None:
    utterance = an_utterance(mode="two_way_auto", lang_a="zh-CN", lang_b="en-US", src_lang="auto", tgt_lang="auto")
    assert needed(utterance).pairs == languages(("zh", "en"), ("en", "zh"))


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({}, "lang_a"),
        ({"lang_a": "en"}, "lang_b"),
        ({"lang_b": "en"}, "lang_a"),
        ({"lang_a": "auto", "lang_b": "en"}, "lang_a"),
        ({"lang_a": "en", "lang_b": "auto"}, "lang_b"),
        ({"lang_a": "en-GB", "lang_b": "en-US"}, "lang_b"),
        ({"lang_a": "???", "lang_b": "en"}, "lang_a"),
    ],
)
def test_two_ways_want_two_languages(fields: dict[str, str], blamed: str) -> None:
    refused(blamed, an_utterance(mode="two_way_auto", **fields))


def test_an_unknown_source_is_any_language() -> None:
    assert needed(an_utterance(src_lang="auto")).pairs == ((AUTO, Language("pt")),)


@pytest.mark.parametrize("auto_langs", [["fr", "de"], ["de", "fr"], ["fr-CA", "de", "fr", "pt-BR"]])
def test_an_unknown_source_may_be_one_of_a_list(auto_langs: list[str]) -> None:
    assert needed(an_utterance(src_lang="auto", auto_langs=auto_langs)).pairs == languages(("de", "pt"), ("fr", "pt"))


@pytest.mark.parametrize("auto_langs", [[], ["pt"]])
def test_a_list_that_leaves_nothing_restricts_nothing(auto_langs: list[str]) -> None:
    assert needed(an_utterance(src_lang="auto", auto_langs=auto_langs)).pairs == languages(("auto", "pt"))


def test_a_known_source_needs_no_list() -> None:
    assert needed(an_utterance(auto_langs=["de"])).pairs == languages(("en", "pt"))


@pytest.mark.parametrize(
    ("fields", "blamed"),
    [
        ({"src_lang": "???"}, "src_lang"),
        ({"src_lang": "english language"}, "src_lang"),
        ({"tgt_lang": "x"}, "tgt_lang"),
        ({"tgt_lang": "auto"}, "tgt_lang"),
        ({"src_lang": "auto", "auto_langs": ["de", "auto"]}, "auto_langs"),
        ({"src_lang": "auto", "auto_langs": ["1"]}, "auto_langs"),
    ],
)
def test_a_tag_that_is_none_is_blamed_on_its_field(fields: dict[str, Any], blamed: str) -> None:
    refused(blamed, an_utterance(**fields))
    with pytest.raises(FormatError, match=rf"^{blamed}: "):
        read_init(a_session_init(**fields))


def test_a_session_with_good_languages_opens() -> None:
    read_init(a_session_init(src_lang="auto", auto_langs=["de", "fr"]))
    read_init(a_session_init(mode="two_way_auto", lang_a="en", lang_b="de"))


# --- for whom


def test_a_need_has_its_tenant_and_preferred_node() -> None:
    asked = needed(an_utterance(preferred_node_id="n7"), tenant="acme")
    assert (asked.tenant, asked.preferred) == (TenantId("acme"), NodeId("n7"))


def test_equal_needs_are_one_object() -> None:
    assert needed(an_utterance(src_lang="en-GB")) is needed(an_utterance(src_lang="en-US", utterance_index=5))
    assert needed(an_utterance()) is not needed(an_utterance(), tenant="acme")


# --- sound and text


def wav(*chunks: tuple[bytes, bytes], tail: bytes = b"") -> bytes:
    """A RIFF file of these chunks; each is padded to an even length."""
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body + tail


FMT = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
DATA = (b"data", b"\0\0\1\1")


@pytest.mark.parametrize("audio_format", ["pcm16", "wav", "opus", "text"])
def test_nothing_at_all_is_no_audio(audio_format: str) -> None:
    assert audio_format in refused("audio", an_utterance(audio=b"", audio_format=audio_format))


def test_half_a_sample_is_no_pcm16() -> None:
    assert "even" in refused("audio", an_utterance(audio=b"\0" * 31))


def test_opus_may_have_any_length() -> None:
    assert read(an_utterance(audio=b"\0" * 31, audio_format="opus")).audio == b"\0" * 31


@pytest.mark.parametrize("audio_format", ["pcm16", "opus"])
@pytest.mark.parametrize("rate", [0, 7999, 192_001, 2**53])
def test_a_rate_that_no_microphone_has_is_refused(audio_format: str, rate: int) -> None:
    assert "8000 to 192000" in refused("sample_rate", an_utterance(audio_format=audio_format, sample_rate=rate))


@pytest.mark.parametrize("rate", [8000, 44_100, 192_000])
def test_a_rate_that_microphones_have_is_taken(rate: int) -> None:
    assert read(an_utterance(sample_rate=rate)).sample_rate == rate


@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_text_is_utf8(text: bytes) -> None:
    assert "UTF-8" in refused("audio", an_utterance(audio=text, audio_format="text"))


@pytest.mark.parametrize("text", [" ", "\n\t", "\u2003"])
def test_blank_text_is_no_text(text: str) -> None:
    refused("audio", a_text(text))


def test_text_needs_no_rate() -> None:
    assert read(a_text("olá")).audio == "olá".encode()


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((FMT, DATA), id="plain"),
        pytest.param(((b"LIST", b"odd"), FMT, (b"fact", b"\0" * 4), DATA), id="odd chunk before"),
        pytest.param((FMT, (b"bext", b"x"), (b"junk", b""), DATA, (b"LIST", b"y")), id="odd and empty chunks between"),
        pytest.param(((b"fmt ", FMT[1] + b"\0\0" + b"\0" * 22), DATA), id="extensible format"),
    ],
)
def test_a_wav_file_is_known_by_its_chunks(chunks: tuple[tuple[bytes, bytes], ...]) -> None:
    utterance = an_utterance(audio=wav(*chunks), audio_format="wav", sample_rate=0)
    assert read(utterance).audio == utterance.audio


def test_a_wav_file_that_was_streamed_knows_not_how_long_it_is() -> None:
    streamed = wav(FMT) + b"data\xff\xff\xff\xff\0\0\1\1"
    assert read(an_utterance(audio=streamed, audio_format="wav")).audio == streamed


@pytest.mark.parametrize(
    "audio",
    [
        pytest.param(b"RIFF", id="too short"),
        pytest.param(b"\0" * 64, id="no header"),
        pytest.param(wav(FMT, DATA).replace(b"WAVE", b"AVI "), id="another kind of RIFF"),
        pytest.param(wav(), id="no chunks"),
        pytest.param(wav(FMT), id="no data"),
        pytest.param(wav(DATA), id="no format"),
        pytest.param(wav(DATA, FMT), id="format after data"),
        pytest.param(wav((b"fmt ", b"\0" * 14), DATA), id="short format"),
        pytest.param(wav(FMT, (b"data", b"")), id="empty data"),
        pytest.param(wav(FMT, tail=b"data\4\0\0\0"), id="data cut off"),
        pytest.param(wav(FMT, tail=b"LIST\xff\xff\xff\xff"), id="chunk past the end"),
    ],
)
def test_a_wav_file_without_sound_is_refused(audio: bytes) -> None:
    refused("audio", an_utterance(audio=audio, audio_format="wav"))


def test_a_wav_file_of_endless_chunks_costs_no_time() -> None:
    endless = wav(FMT, tail=b"junk\0\0\0\0" * 1_000_000)
    before_s = time.process_time()
    refused("audio", an_utterance(audio=endless, audio_format="wav"))
    assert time.process_time() - before_s < 0.1


@given(audio=st.binary(max_size=100), has_header=st.booleans())
def test_any_wav_file_is_taken_or_refused(audio: bytes, has_header: bool) -> None:
    utterance = an_utterance(audio=wav(FMT, tail=audio) if has_header else audio, audio_format="wav")
    with contextlib.suppress(FormatError):
        assert read(utterance).audio == utterance.audio
