"""What is a node told of a job? From the request to `job_assign`."""

from __future__ import annotations

from functools import lru_cache

from dragoman.core.job import JobRequest
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.node_messages import JobAssign


@lru_cache(maxsize=64)
def _pipeline(services: frozenset[str]) -> Pipeline:
    return Pipeline(
        use_asr="asr" in services,
        use_nmt="nmt" in services,
        use_tts="tts" in services,
        use_semantic=True if "semantic" in services else None,
        use_tone=True if "tone" in services else None,
    )


def make_assignment(request: JobRequest, attempt: int) -> JobAssign:
    """One attempt at a job, as its node sees it."""
    speech = request.speech
    return JobAssign(
        job_id=request.job_id,
        attempt_id=attempt,
        session_id=request.session_id,
        utterance_index=request.utterance_index,
        src_lang=speech.src_lang,
        tgt_lang=speech.tgt_lang,
        pipeline=_pipeline(speech.services),
        audio=speech.audio,
        audio_format=speech.audio_format,
        sample_rate=speech.sample_rate,
        trace_id=request.trace_id,
        dialect=speech.dialect,
        features=speech.features,
        mode=speech.mode,
        lang_a=speech.lang_a,
        lang_b=speech.lang_b,
        auto_langs=None if speech.auto_langs is None else list(speech.auto_langs),
        enable_streaming_asr=speech.enable_streaming_asr,
        partial_update_interval_ms=speech.partial_update_interval_ms,
        is_manual_cut=speech.is_manual_cut or None,
        is_pause_triggered=speech.is_pause_triggered or None,
        is_timeout_triggered=speech.is_timeout_triggered or None,
    )
