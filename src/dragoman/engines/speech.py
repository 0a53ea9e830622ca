"""How does the reference node speak? With eSpeak NG, whose library and voices are in a package."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dragoman.core.language import LanguageTagError, parse_language
from dragoman.node import Audio, ErrorCode, ModelNotAvailableError, Service, ServiceError, Services
from dragoman.telemetry.logs import get_logger

_log = get_logger("engines")

_SERVICE_ID: Final = "tts-espeak-ng"
_SPEED_DEFAULT: Final = 175
"""Words a minute, as eSpeak NG itself has it; recognisers understand it best at that."""
_PREFERRED: Final = {"en": "en-us", "pt": "pt-br"}
"""Of the voices of one language the one that most machines and people here expect."""

# From speak_lib.h of eSpeak NG.
_SYNCHRONOUS: Final = 2
_CHARS_UTF8: Final = 1
_PARAMETER_RATE: Final = 1
_EE_OK: Final = 0

_Callback: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _VoiceRecord(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


@dataclass(frozen=True, slots=True)
class _Voice:
    """One voice for one language tag; of several for a tag the lowest priority number is meant."""

    priority: int
    tag: str
    identifier: str


def services(*, words_per_minute: int = _SPEED_DEFAULT) -> Services:
    """The speaker of all languages that eSpeak NG has; or none, with the reason, if its package is missing."""
    offered = Services()
    try:
        espeak = _espeak()
    except (ImportError, OSError, RuntimeError) as error:
        reason = f"eSpeak NG: {error}; install dragoman[offline]"
        _log.warning("engine_absent", engine="espeak-ng", reason=reason)
        offered.absent(Service.TTS, reason)
        return offered

    @offered.speaks(*espeak.languages, service_id=_SERVICE_ID)
    def speak(text: str, language: str) -> Audio:
        return espeak.speak(text, language, words_per_minute)

    return offered


def speaker(*, words_per_minute: int = _SPEED_DEFAULT) -> Callable[[str, str], Audio] | None:
    """Somebody who says a text in a language, for programs that need a voice; None if the package is missing."""
    offer = next(iter(services(words_per_minute=words_per_minute).of(Service.TTS)), None)
    return None if offer is None else offer.function


@functools.cache
def _espeak() -> _Espeak:
    """The library keeps its state in globals: there is one in a process."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ImportError("not installed: espeakng_loader")
    return _Espeak()


class _Espeak:
    """The library, one caller at a time: it is not thread-safe."""

    def __init__(self) -> None:
        import espeakng_loader

        self._lock = threading.Lock()
        self._sound = bytearray()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._rate = _start(self._library, espeakng_loader.get_data_path())
        # ctypes keeps no reference of its own: without this one the library would call freed memory.
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voices = _best(_list_voices(self._library))

    @property
    def languages(self) -> tuple[str, ...]:
        """The primary languages that it speaks."""
        return tuple(sorted({parse_language(tag) for tag in self._voices}))

    def speak(self, text: str, language: str, words_per_minute: int) -> Audio:
        """Speech of a text, all of it at once."""
        voice = self._voice(language)
        # A zero byte would end the text for the library.
        data = text.replace("\0", " ").encode(errors="replace") + b"\0"
        with self._lock:
            self._sound.clear()
            _check(self._library.espeak_SetVoiceByName(voice.encode()), "voice")
            _check(self._library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0), "speed")
            _check(self._library.espeak_Synth(data, len(data), 0, 0, 0, _CHARS_UTF8, None, None), "synthesis")
            return Audio(data=bytes(self._sound), sample_rate=self._rate)

    def _voice(self, language: str) -> str:
        tag = language.lower().replace("_", "-")
        primary = parse_language(language)
        for wanted in (tag if "-" in tag else "", _PREFERRED.get(primary, primary), primary):
            if wanted in self._voices:
                return self._voices[wanted].identifier
        raise ModelNotAvailableError(_SERVICE_ID, f"{_SERVICE_ID} has no voice for {primary}")

    def _take(self, samples: int | None, count: int, _events: int | None) -> int:
        """Take in a piece of sound; 0 asks for more."""
        if samples and count > 0:
            self._sound += ctypes.string_at(samples, count * 2)
        return 0


def _start(library: ctypes.CDLL, data_path: str) -> int:
    """Start the library; its sample rate in Hz."""
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceRecord))
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    rate = int(library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), 0))
    if rate <= 0:
        raise RuntimeError(f"espeak_Initialize with the data in {data_path} answered {rate}; wanted a sample rate")
    return rate


def _list_voices(library: ctypes.CDLL) -> Iterator[_Voice]:
    """Each tag of each voice. Tags that are no language tags are left out."""
    records: Any = library.espeak_ListVoices(None)
    at = 0
    while records[at]:
        record = records[at].contents
        at += 1
        identifier = record.identifier.decode(errors="replace")
        for priority, tag in _tags(record.languages):
            try:
                parse_language(tag)
            except LanguageTagError:
                continue
            yield _Voice(priority, tag, identifier)


def _tags(address: int) -> Iterator[tuple[int, str]]:
    """A list in C: a byte of priority and a tag that ends with zero, again and again, until the priority is zero."""
    while priority := ctypes.string_at(address, 1)[0]:
        tag = ctypes.string_at(address + 1)
        yield priority, tag.decode(errors="replace").lower()
        address += 2 + len(tag)


def _best(voices: Iterator[_Voice]) -> dict[str, _Voice]:
    best: dict[str, _Voice] = {}
    for voice in voices:
        known = best.get(voice.tag)
        if known is None or voice.priority < known.priority:
            best[voice.tag] = voice
    # Some languages have voices of a variety only, such as `chr-us-qaaa-x-west`.
    for voice in tuple(best.values()):
        best.setdefault(parse_language(voice.tag), voice)
    return best


def _check(answer: int, step: str) -> None:
    if answer != _EE_OK:
        message = f"{_SERVICE_ID}: {step} answered {answer}; wanted {_EE_OK}"
        raise ServiceError(ErrorCode.INTERNAL_ERROR, message, {"service_id": _SERVICE_ID})
