"""What does a node do that only echoes? Nothing that costs time: for tests, benches and trying out a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dragoman.node import Audio, Recognised, Services, any_to_any

LANGUAGES: Final = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
_SILENCE: Final = Audio(data=bytes(320), sample_rate=16_000).to_wav()
"""10 ms."""


def services(*, languages: Iterable[str] = LANGUAGES, pairs: Iterable[tuple[str, str]] = ()) -> Services:
    """Services that answer at once, for all pairs of `languages`, or for `pairs` only if there are any."""
    served = tuple(languages)
    only = tuple(pairs)
    offered = Services()
    offered.recognises(*served, service_id="asr-echo")(_recognise)
    if only:
        offered.translates(*only, service_id="nmt-echo")(_translate)
    else:
        offered.translates(model=any_to_any(*served), service_id="nmt-echo")(_translate)
    offered.speaks(*served, service_id="tts-echo")(_speak)
    return offered


async def _recognise(audio: Audio) -> Recognised:
    """The audio itself if it is text in disguise, else how long it is; without a language: the first that may be."""
    try:
        text = audio.data.decode()
    except UnicodeDecodeError:
        text = ""
    heard = text.strip() if text.isprintable() else ""
    language = audio.language or (audio.candidates[0] if audio.candidates else LANGUAGES[2])
    return Recognised(heard or f"{len(audio.data)} bytes", language)


async def _translate(text: str, _src: str, tgt: str) -> str:
    return f"[{tgt}] {text}"


async def _speak(_text: str, _language: str) -> bytes:
    return _SILENCE
