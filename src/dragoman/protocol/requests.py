"""What does an utterance ask for? From the messages of a session to what is to be done and what it needs."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec import Struct

from dragoman.core.capability import Need, Pair, Service, need
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.job import Speech
from dragoman.core.language import AUTO, Language, LanguageTagError, parse_language
from dragoman.protocol.codec import FormatError
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.session_messages import SessionInit, Utterance

SAMPLE_RATES: Final = range(8_000, 192_001)
CHUNK_SAMPLE_RATE: Final = 16_000
"""Samples per second of the PCM16 mono in `audio_chunk`; told to the client in `session_init_ack`."""

_DEFAULT: Final = Pipeline()


class Asked(Struct, frozen=True):
    """What is to be translated and how, and what a node must be able to do for it."""

    speech: Speech
    need: Need


def read_init(init: SessionInit) -> None:
    """Check what `session_init` says of languages. Raises FormatError, which names the field."""
    auto_langs = None if init.auto_langs is None else tuple(init.auto_langs)
    _pairs(init.src_lang, init.tgt_lang, init.mode, init.lang_a, init.lang_b, auto_langs)


def read_utterance(utterance: Utterance, init: SessionInit, tenant: TenantId | None) -> Asked:
    """What an utterance asks for; what it leaves out is as in `session_init`.

    Raises FormatError, which names the field and what was wanted.
    """
    services = _services(utterance.pipeline or _DEFAULT, is_text=utterance.audio_format == "text")
    _check_audio(utterance.audio, utterance.audio_format, utterance.sample_rate)
    mode = utterance.mode or init.mode
    lang_a = utterance.lang_a or init.lang_a
    lang_b = utterance.lang_b or init.lang_b
    auto_langs = utterance.auto_langs if utterance.auto_langs is not None else init.auto_langs
    streaming = utterance.enable_streaming_asr
    interval = utterance.partial_update_interval_ms
    speech = Speech(
        src_lang=utterance.src_lang,
        tgt_lang=utterance.tgt_lang,
        audio=utterance.audio,
        audio_format=utterance.audio_format,
        sample_rate=utterance.sample_rate,
        services=services,
        dialect=utterance.dialect or init.dialect,
        features=utterance.features if utterance.features is not None else init.features,
        mode=mode,
        lang_a=lang_a,
        lang_b=lang_b,
        auto_langs=None if auto_langs is None else tuple(auto_langs),
        enable_streaming_asr=streaming if streaming is not None else init.enable_streaming_asr,
        partial_update_interval_ms=interval if interval is not None else init.partial_update_interval_ms,
        is_manual_cut=utterance.manual_cut,
    )
    preferred = None if utterance.preferred_node_id is None else NodeId(utterance.preferred_node_id)
    pairs = _pairs(utterance.src_lang, utterance.tgt_lang, mode, lang_a, lang_b, speech.auto_langs)
    return Asked(speech, need(services, pairs, tenant, preferred))


_ALL_SERVICES: Final = frozenset({Service.ASR, Service.NMT, Service.TTS})
_TEXT_SERVICES: Final = frozenset({Service.NMT, Service.TTS})


def _services(pipeline: Pipeline, *, is_text: bool) -> frozenset[Service]:
    if pipeline is _DEFAULT:
        return _TEXT_SERVICES if is_text else _ALL_SERVICES
    wanted = {
        Service.ASR: not is_text if pipeline.use_asr is None else pipeline.use_asr,
        Service.NMT: pipeline.use_nmt is not False,
        Service.TTS: pipeline.use_tts is not False,
        Service.SEMANTIC: pipeline.use_semantic is True,
        Service.TONE: pipeline.use_tone is True,
    }
    if is_text and wanted[Service.ASR]:
        raise FormatError("pipeline.use_asr: true, but audio_format is text; wanted false, or leave it out")
    if not is_text and not wanted[Service.ASR] and (wanted[Service.NMT] or wanted[Service.TTS]):
        raise FormatError("pipeline.use_asr: false, but nothing else turns audio into text; wanted true")
    chosen = frozenset(service for service, is_wanted in wanted.items() if is_wanted)
    if not chosen:
        raise FormatError("pipeline: every service is off; wanted at least one on")
    return chosen


@lru_cache(maxsize=4096)
def _pairs(
    src_tag: str,
    tgt_tag: str,
    mode: str | None,
    lang_a: str | None,
    lang_b: str | None,
    auto_langs: tuple[str, ...] | None,
) -> tuple[Pair, ...]:
    if mode == "two_way_auto":
        a, b = _spoken("lang_a", lang_a or ""), _spoken("lang_b", lang_b or "")
        if a == b:
            raise FormatError(f"lang_b: {lang_b!r} is the language of lang_a too; two_way_auto wants two")
        return (a, b), (b, a)
    src, tgt = _language("src_lang", src_tag), _spoken("tgt_lang", tgt_tag)
    if src != AUTO:
        return ((src, tgt),)
    listed = sorted({_spoken("auto_langs", tag) for tag in auto_langs or ()} - {tgt})
    return tuple((known, tgt) for known in listed) or ((AUTO, tgt),)


def _language(field: str, tag: str) -> Language:
    try:
        return parse_language(tag)
    except LanguageTagError as error:
        raise FormatError(f"{field}: {error}") from error


def _spoken(field: str, tag: str) -> Language:
    language = _language(field, tag)
    if language == AUTO:
        raise FormatError(f"{field}: 'auto' is no language to translate into; wanted one like 'en'")
    return language


def _check_audio(audio: bytes, audio_format: str, sample_rate: int) -> None:
    if not audio:
        raise FormatError(f"audio: empty; wanted {audio_format}")
    match audio_format:
        case "text":
            _check_text(audio)
        case "wav":
            _check_wav(audio)
        case _:
            if sample_rate not in SAMPLE_RATES:
                wanted = f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}"
                raise FormatError(f"sample_rate: {sample_rate}; wanted {wanted} samples per second")
            if audio_format == "pcm16" and len(audio) % 2:
                raise FormatError(f"audio: {len(audio)} bytes; wanted an even number, pcm16 has 2 a sample")


def _check_text(audio: bytes) -> None:
    try:
        text = audio.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"audio: not UTF-8 at byte {error.start}; wanted text") from error
    if not text.strip():
        raise FormatError("audio: blank; wanted text")


_WAV_CHUNKS_MAX: Final = 1000
"""Chunks looked at before `data` must have come: walking 8 MiB of empty ones would take half a second."""


def _check_wav(audio: bytes) -> None:
    """Walk the chunks of a RIFF file (Multimedia Programming Interface 1.0): it needs `fmt ` and then `data`."""
    if len(audio) < 12 or audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        raise FormatError("audio: no RIFF/WAVE header; wanted a WAV file")
    at, has_format = 12, False
    for _ in range(_WAV_CHUNKS_MAX):
        if at + 8 > len(audio):
            break
        name, size = audio[at : at + 4], int.from_bytes(audio[at + 4 : at + 8], "little")
        has_format = has_format or (name == b"fmt " and size >= 16)
        if name == b"data" and has_format and size > 0 and at + 8 < len(audio):
            return
        at += 8 + size + size % 2
    raise FormatError("audio: a WAV file without sound; wanted a 'fmt ' and a non-empty 'data' chunk")
