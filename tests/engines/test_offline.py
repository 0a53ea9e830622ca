"""Do the real engines understand, translate and speak?"""

import asyncio
import re
import wave
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest

from dragoman.core.capability import Service
from dragoman.core.language import parse_language
from dragoman.engines import echo, offline
from dragoman.node import Audio, ModelNotAvailableError, Services

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("engines")]

# eSpeak NG never says a sentence twice in the same way; these were understood 14 times out of 14.
SENTENCES = (
    "Good morning, how are you today?",
    "Can you help me, please?",
    "Thank you very much for your help.",
    "How much does this cost?",
    "We need to leave tomorrow morning.",
    "Please open the window.",
    "I do not understand the question.",
    "My brother works in a hospital.",
    "Please call me when you arrive.",
    "We are very happy to see you again.",
)


@pytest.fixture(scope="module")
def services() -> Services:
    return offline.services(parallel=2)


def _call(services: Services, service: Service, *arguments: Any, languages: tuple[str, ...]) -> Any:
    offer = services.find(service, *map(parse_language, languages))
    assert offer is not None
    answer = offer.function(*arguments)
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer


def _speak(services: Services, text: str, language: str) -> Audio:
    audio = _call(services, Service.TTS, text, language, languages=(language,))
    assert isinstance(audio, Audio)
    return audio


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_one_engine_says_the_other_understands(services: Services, sentence: str) -> None:
    heard = _call(services, Service.ASR, _speak(services, sentence, "en"), languages=("en",))
    assert _words(heard) == _words(sentence)


def test_silence_and_nothing_are_understood_without_an_error(services: Services) -> None:
    assert _call(services, Service.ASR, Audio(data=b"", sample_rate=16_000), languages=("en",)) == ""
    assert isinstance(_call(services, Service.ASR, Audio(data=bytes(16_000), sample_rate=8000), languages=("en",)), str)


@pytest.mark.parametrize(
    ("src", "tgt", "text", "words"),
    [
        ("en", "pt", "Good morning, where is the train station?", {"bom", "dia", "trem"}),
        ("en", "pt", "Thank you for your help.", {"obrigado", "ajuda"}),
        ("pt", "en", "Bom dia, onde fica a estação de trem?", {"good", "morning", "train", "station"}),
        ("pt", "en", "Obrigado pela sua ajuda.", {"thank", "you", "help"}),
    ],
)
def test_translations_have_the_words_that_they_must(
    services: Services, src: str, tgt: str, text: str, words: set[str]
) -> None:
    translated = _call(services, Service.NMT, text, src, tgt, languages=(src, tgt))
    assert words <= set(re.findall(r"\w+", translated.lower()))


def test_an_empty_text_stays_empty(services: Services) -> None:
    assert _call(services, Service.NMT, " ", "en", "pt", languages=("en", "pt")) == ""


@pytest.mark.parametrize(
    ("language", "text"), [("en", "Good morning"), ("pt-BR", "Bom dia"), ("pt_PT", "Bom dia"), ("es", "Buenos días")]
)
def test_speech_is_a_proper_wav(services: Services, language: str, text: str) -> None:
    with wave.open(BytesIO(_speak(services, text, language).to_wav())) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 22_050)
        assert 0.3 < wav.getnframes() / wav.getframerate() < 5
        assert any(wav.readframes(wav.getnframes()))


def test_speakers_at_the_same_time_do_not_mix(services: Services) -> None:
    wanted = {text: _speak(services, text, "en").data for text in SENTENCES}
    with ThreadPoolExecutor(8) as pool:
        spoken = pool.map(lambda text: (text, _speak(services, text, "en").data), SENTENCES * 3)
        assert all(abs(len(data) - len(wanted[text])) < 0.1 * len(wanted[text]) for text, data in spoken)


def test_it_speaks_many_languages_and_says_which_it_does_not(services: Services) -> None:
    speaker = services.of(Service.TTS)[0]
    assert speaker.languages is not None
    assert len(speaker.languages) > 100
    assert {"en", "pt", "es", "zh", "ar", "hi"} <= set(speaker.languages)
    for language in sorted(speaker.languages):
        assert speaker.function("1 2", language).data, language
    with pytest.raises(ModelNotAvailableError, match="no voice for xx"):
        speaker.function("hello", "xx")


def test_echo_answers_without_any_of_them() -> None:
    services = echo.services()
    heard = _call(services, Service.ASR, Audio(data=b"hi there", sample_rate=8000), languages=("en",))
    assert heard.text == "hi there"
    assert _call(services, Service.ASR, Audio(data=b"\0\xff", sample_rate=8000), languages=()).text == "2 bytes"
    assert _call(services, Service.NMT, "hi", "en", "pt", languages=("en", "pt")) == "[pt] hi"
    assert _call(services, Service.TTS, "hi", "en", languages=("en",))[:4] == b"RIFF"
