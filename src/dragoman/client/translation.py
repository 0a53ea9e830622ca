"""What does a program get for an utterance: on the way, and in the end?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dragoman.protocol.session_messages import SessionAsrPartial, TranslationResult, UiEvent, UiEventKind

Stage = UiEventKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """What has been recognised so far of an utterance; `is_final`: it will not change any more."""

    text: str
    is_final: bool
    utterance_index: int
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an utterance has come; `elapsed_s` is the scheduler's count of seconds since it accepted it."""

    stage: Stage
    utterance_index: int
    job_id: str
    elapsed_s: float | None = None
    hint: str | None = None


Update: TypeAlias = Partial | Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """An utterance, translated.

    `recognised` is what was said, `translated` the same in the other language. `audio` is that spoken, in
    `audio_format`, or empty. `elapsed_s` is how long it took, in seconds, from the request of the program to its
    result; None for an utterance that the scheduler cut from a stream. `service_timings` and `network_timings` are as
    the nodes give them; what else they say is in `extra`.
    """

    recognised: str
    translated: str
    audio: bytes
    audio_format: str
    job_id: str
    utterance_index: int
    trace_id: str
    request_id: str | None = None
    elapsed_s: float | None = None
    service_timings: dict[str, Any] = field(default_factory=dict)
    network_timings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    quality_score: float | None = None
    asr_quality_level: str | None = None
    group_id: str | None = None
    part_index: int | None = None


def read_update(message: UiEvent | SessionAsrPartial) -> Update:
    """The update that a message of the scheduler tells."""
    index, job_id = message.utterance_index, message.job_id
    if isinstance(message, SessionAsrPartial):
        return Partial(text=message.text, is_final=message.is_final, utterance_index=index, job_id=job_id)
    elapsed_s = None if message.elapsed_ms is None else message.elapsed_ms / 1000
    return Progress(stage=message.event, utterance_index=index, job_id=job_id, elapsed_s=elapsed_s, hint=message.hint)


def read_result(
    result: TranslationResult, *, request_id: str | None = None, elapsed_s: float | None = None
) -> Translation:
    """The translation that a `translation_result` brings."""
    return Translation(
        recognised=result.text_asr,
        translated=result.text_translated,
        audio=result.tts_audio,
        audio_format=result.tts_format,
        job_id=result.job_id,
        utterance_index=result.utterance_index,
        trace_id=result.trace_id,
        request_id=request_id,
        elapsed_s=elapsed_s,
        service_timings=result.service_timings or {},
        network_timings=result.network_timings or {},
        extra=result.extra or {},
        quality_score=result.quality_score,
        asr_quality_level=result.asr_quality_level,
        group_id=result.group_id,
        part_index=result.part_index,
    )
