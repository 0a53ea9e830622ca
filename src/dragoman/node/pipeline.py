"""What is done to one utterance? Recognise, refine, translate, speak and give it a voice: each if it is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dragoman.core.capability import Service
from dragoman.core.language import AUTO, Language, LanguageTagError, parse_language
from dragoman.node.audio import Audio, Spoken, check_sample_rate, read_wav
from dragoman.node.calls import Calls
from dragoman.node.errors import BadInputError, ModelNotAvailableError, ServiceError, UnsupportedError
from dragoman.node.services import Offer, Recognised, Services
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.node_messages import JobAssign

_TEXT: Final = "text"
_TWO_WAY: Final = "two_way_auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What came of one utterance. `timings` are milliseconds by the names of the protocol's `service_timings`."""

    text_asr: str
    text_translated: str
    speech: bytes
    speech_format: str
    timings: Mapping[str, float]
    detected: str | None


@dataclass(slots=True)
class _Clock:
    timings: dict[str, float] = field(default_factory=dict)

    async def run(self, calls: Calls, offer: Offer, *arguments: object) -> Any:
        begin = time.perf_counter()
        try:
            return await calls.call(offer, *arguments)
        finally:
            self.timings[f"{offer.service}_ms"] = round((time.perf_counter() - begin) * 1000, 1)


class Pipeline:
    """The services of a node, one behind the other."""

    def __init__(self, services: Services, calls: Calls) -> None:
        self._services = services
        self._calls = calls

    async def run(self, job: JobAssign, heard: Callable[[str], None]) -> Translation:
        """Translate one utterance; `heard` is told the recognised text as soon as it is there.

        Raises ServiceError.
        """
        clock = _Clock()
        audio, said = await self._hear(job, clock)
        text = said.text.strip()
        if job.pipeline.use_semantic and text:
            text = await self._refine(text, _known(said.language), clock)
        heard(text)
        wants_nmt, wants_tts = job.pipeline.use_nmt is not False, job.pipeline.use_tts is not False
        translated, language = text, said.language
        if text and wants_nmt:
            language = _target(job, _known(said.language))
            translated = await self._translate(text, _known(said.language), language, clock)
        speech = Spoken(data=b"", format="")
        if translated and wants_tts:
            speech = await self._speak(job, translated, _known(language), audio, clock)
        return Translation(
            text_asr=text,
            text_translated=translated if wants_nmt else "",
            speech=speech.data,
            speech_format=speech.format,
            timings=clock.timings,
            detected=None if said.language == job.src_lang else said.language,
        )

    async def _hear(self, job: JobAssign, clock: _Clock) -> tuple[Audio | None, Recognised]:
        given = None if _language(job.src_lang) == AUTO else job.src_lang
        if job.audio_format == _TEXT:
            return None, Recognised(_decode_text(job.audio), given)
        if job.pipeline.use_asr is False:
            raise UnsupportedError(
                f"the audio is {job.audio_format} and use_asr is false; only text needs no recognition"
            )
        candidates = _candidates(job)
        wanted = [_language(tag) for tag in candidates] if given is None else [_language(given)]
        offer = self._find(Service.ASR, *wanted)
        audio = await self._decode(job, offer, given, candidates)
        answer = await clock.run(self._calls, offer, audio)
        said = Recognised(answer) if isinstance(answer, str) else answer
        if not isinstance(said, Recognised) or not isinstance(said.text, str) or not _is_tag(said.language):
            raise _wrong(offer, answer, "str or Recognised")
        return audio, Recognised(said.text, said.language or given or _only(offer))

    async def _decode(self, job: JobAssign, offer: Offer, given: str | None, candidates: tuple[str, ...]) -> Audio:
        match job.audio_format:
            case raw if raw in offer.formats:
                data, rate = job.audio, job.sample_rate
            case "pcm16":
                # A half sample at the end is what a cut stream leaves.
                data, rate, raw = job.audio[: len(job.audio) // 2 * 2], check_sample_rate(job.sample_rate), "pcm16"
            case "wav":
                sound = await self._calls.block(read_wav, job.audio)
                data, rate, raw = sound.data, sound.sample_rate, "pcm16"
            case other:
                raise UnsupportedError(f"audio_format {other[:32]!r}; this node reads pcm16, wav and text")
        context = job.context_text or ""
        return Audio(data=data, sample_rate=rate, format=raw, language=given, candidates=candidates, context=context)

    async def _refine(self, text: str, language: str, clock: _Clock) -> str:
        offer = self._find(Service.SEMANTIC, _language(language))
        return _text(offer, await clock.run(self._calls, offer, text, language))

    async def _translate(self, text: str, src: str, tgt: str, clock: _Clock) -> str:
        pair = _language(src), _language(tgt)
        if self._services.find(Service.NMT, *pair) is None and pair[0] == pair[1]:
            return text
        offer = self._find(Service.NMT, *pair)
        return _text(offer, await clock.run(self._calls, offer, text, src, tgt))

    async def _speak(self, job: JobAssign, text: str, language: str, audio: Audio | None, clock: _Clock) -> Spoken:
        offer = self._find(Service.TTS, _language(language))
        speech = _spoken(offer, await clock.run(self._calls, offer, text, language))
        if not job.pipeline.use_tone:
            return speech
        offer = self._find(Service.TONE)
        if audio is None or audio.format != "pcm16" or speech.format != "wav":
            raise UnsupportedError("use_tone wants PCM or WAV audio of the speaker, and a voice that gives WAV")
        toned = await clock.run(self._calls, offer, await self._calls.block(read_wav, speech.data), audio)
        return _spoken(offer, toned)

    def _find(self, service: Service, *languages: Language) -> Offer:
        offer = self._services.find(service, *languages)
        if offer is not None:
            return offer
        wanted = " to ".join(languages) if service is Service.NMT else ", ".join(languages)
        known = self._services.of(service)
        reason = f"nothing here serves {wanted or 'it'}" if known else self._services.why_absent(service)
        raise ModelNotAvailableError(service.value, f"{service}: {reason}")


def _language(tag: str) -> Language:
    try:
        return parse_language(tag)
    except LanguageTagError as error:
        raise BadInputError(str(error)) from error


def _is_tag(language: object) -> bool:
    return language is None or isinstance(language, str)


def _known(language: str | None) -> str:
    if language is None:
        raise UnsupportedError(
            "the source language is auto, and nothing here can tell which it is; name it in src_lang"
        )
    return language


def _only(offer: Offer) -> str | None:
    """A recogniser of one language can have heard no other."""
    return next(iter(offer.languages)) if offer.languages is not None and len(offer.languages) == 1 else None


def _candidates(job: JobAssign) -> tuple[str, ...]:
    if job.mode == _TWO_WAY and job.lang_a and job.lang_b:
        return job.lang_a, job.lang_b
    return tuple(job.auto_langs or ())


def _target(job: JobAssign, src: str) -> str:
    """The wanted language; in a conversation of two, the other one's."""
    if job.mode != _TWO_WAY or not job.lang_a or not job.lang_b:
        return job.tgt_lang
    spoken = _language(src)
    if spoken == _language(job.lang_a):
        return job.lang_b
    if spoken == _language(job.lang_b):
        return job.lang_a
    raise UnsupportedError(f"heard {spoken}; wanted {job.lang_a} or {job.lang_b}, the languages of this conversation")


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(f"the text is no UTF-8 at byte {error.start}") from error


def _text(offer: Offer, answer: object) -> str:
    if not isinstance(answer, str):
        raise _wrong(offer, answer, "str")
    return answer


def _spoken(offer: Offer, answer: object) -> Spoken:
    match answer:
        case Spoken(data=bytes(), format=str()):
            return answer
        case Audio(format="pcm16"):
            return Spoken(data=answer.to_wav(), format="wav")
        case bytes() if answer[:4] == b"RIFF":
            return Spoken(data=answer, format="wav")
        case _:
            raise _wrong(offer, answer, "an Audio of pcm16, the bytes of a WAV, or Spoken")


def _wrong(offer: Offer, answer: object, wanted: str) -> ServiceError:
    message = f"{offer.service_id} returned {type(answer).__name__}; wanted {wanted}"
    return ServiceError(ErrorCode.INTERNAL_ERROR, message, {"service_id": offer.service_id})
