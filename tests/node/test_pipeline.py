"""Which services does an utterance go through, and in which languages?"""

import asyncio
from collections.abc import Callable

import pytest

from dragoman.node import (
    Audio,
    BadInputError,
    ModelNotAvailableError,
    Recognised,
    ServiceError,
    Services,
    Spoken,
    TimeLimits,
    UnsupportedError,
    any_to_any,
)
from dragoman.node.calls import Calls
from dragoman.node.pipeline import Pipeline as Work
from dragoman.node.pipeline import Translation
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.node_messages import JobAssign
from tests.node.fake_scheduler import FULL, assign, speech


def _services(heard: Callable[[Audio], str | Recognised] = lambda audio: "hello", *languages: str) -> Services:
    services = Services()
    services.recognises(*(languages or ("en", "pt")), service_id="asr")(heard)
    services.translates(model=any_to_any("en", "pt", "es"), service_id="nmt")(
        lambda text, src, tgt: f"{text} {src}>{tgt}"
    )
    services.speaks("en", "pt", service_id="tts")(
        lambda text, lang: Spoken(data=f"{text} in {lang}".encode(), format="x")
    )
    return services


def _run(services: Services, job: JobAssign) -> Translation:
    async def run() -> Translation:
        calls = Calls(threads=1, limits=TimeLimits())
        try:
            return await Work(services, calls).run(job, lambda text: None)
        finally:
            calls.close()

    return asyncio.run(run())


def test_text_is_only_translated() -> None:
    done = _run(_services(), assign())
    assert (done.text_asr, done.text_translated, done.speech, set(done.timings)) == (
        "hello",
        "hello en>pt",
        b"",
        {"nmt_ms"},
    )


def test_what_the_pipeline_leaves_out_is_left_out() -> None:
    only_asr = _run(_services(), speech(pipeline=Pipeline(use_asr=True, use_nmt=False, use_tts=False)))
    assert (only_asr.text_asr, only_asr.text_translated, only_asr.speech) == ("hello", "", b"")
    no_nmt = _run(_services(), speech(pipeline=Pipeline(use_asr=True, use_nmt=False, use_tts=True)))
    assert no_nmt.speech == b"hello in en"
    with pytest.raises(UnsupportedError, match="use_asr is false"):
        _run(_services(), speech(pipeline=Pipeline(use_asr=False)))


def test_silence_is_neither_translated_nor_spoken() -> None:
    done = _run(_services(lambda audio: "  "), speech())
    assert (done.text_asr, done.text_translated, done.speech, set(done.timings)) == ("", "", b"", {"asr_ms"})


def test_the_recogniser_says_which_language_it_heard() -> None:
    done = _run(
        _services(lambda audio: Recognised("olá", "pt")),
        speech(src_lang="auto", tgt_lang="es", pipeline=Pipeline(use_tts=False)),
    )
    assert (done.text_translated, done.detected) == ("olá pt>es", "pt")


def test_a_recogniser_of_one_language_can_have_heard_no_other() -> None:
    assert _run(_services(lambda audio: "hello", "en"), speech(src_lang="auto")).text_translated == "hello en>pt"


@pytest.mark.parametrize(("heard", "translated"), [("en", "hi en>pt"), ("pt-BR", "hi pt-BR>en")])
def test_in_a_conversation_of_two_the_target_is_the_other_language(heard: str, translated: str) -> None:
    seen: list[Audio] = []

    def recognise(audio: Audio) -> Recognised:
        seen.append(audio)
        return Recognised("hi", heard)

    job = speech(src_lang="auto", tgt_lang="pt", mode="two_way_auto", lang_a="en", lang_b="pt")
    assert _run(_services(recognise), job).text_translated == translated
    assert (seen[0].language, seen[0].candidates) == (None, ("en", "pt"))


def test_a_third_language_in_a_conversation_of_two_is_refused() -> None:
    job = speech(src_lang="auto", mode="two_way_auto", lang_a="en", lang_b="pt")
    with pytest.raises(UnsupportedError, match="heard es; wanted en or pt"):
        _run(_services(lambda audio: Recognised("hola", "es")), job)


def test_an_unknown_source_language_fails_and_says_so() -> None:
    with pytest.raises(UnsupportedError, match="source language is auto"):
        _run(_services(), assign(src_lang="auto"))
    with pytest.raises(UnsupportedError, match="source language is auto"):
        _run(_services(), speech(src_lang="auto"))


@pytest.mark.parametrize(
    ("job", "service"),
    [
        (speech(src_lang="de"), "asr"),
        (speech(src_lang="auto", auto_langs=["en", "de"]), "asr"),
        (assign(tgt_lang="de"), "nmt"),
        (speech(tgt_lang="es"), "tts"),
        (speech(pipeline=Pipeline(use_semantic=True)), "semantic"),
        (speech(pipeline=Pipeline(use_tone=True)), "tone"),
    ],
)
def test_a_language_or_service_that_is_not_here_is_named(job: JobAssign, service: str) -> None:
    with pytest.raises(ModelNotAvailableError) as caught:
        _run(_services(), job)
    assert caught.value.details == {"service_id": service}


def test_the_same_language_on_both_sides_needs_no_translation() -> None:
    services = Services()
    services.translates(("en", "pt"))(lambda text, src, tgt: "wrong")
    assert _run(services, assign(src_lang="en-US", tgt_lang="en-GB")).text_translated == "hello"


def test_opus_is_refused_unless_a_recogniser_reads_it() -> None:
    job = speech(audio=b"OggS", audio_format="opus", pipeline=Pipeline(use_tts=False))
    with pytest.raises(UnsupportedError, match="'opus'"):
        _run(_services(), job)
    services = _services()
    services.recognises("fr", formats=["opus"], service_id="opus")(lambda audio: f"{audio.format} {audio.data!r}")
    with pytest.raises(UnsupportedError):
        _run(services, job)
    heard = _run(
        services,
        speech(audio=b"OggS", audio_format="opus", src_lang="fr", pipeline=Pipeline(use_nmt=False, use_tts=False)),
    )
    assert heard.text_asr == "opus b'OggS'"


def test_a_wav_comes_to_the_recogniser_as_pcm() -> None:
    wav = Audio(data=b"\1\2\3\4", sample_rate=22_050).to_wav()
    seen: list[Audio] = []
    _run(_services(lambda audio: seen.append(audio) or "x"), speech(audio=wav, audio_format="wav"))  # type: ignore[func-returns-value]
    assert (seen[0].data, seen[0].sample_rate, seen[0].format) == (b"\1\2\3\4", 22_050, "pcm16")


def test_a_sample_rate_that_cannot_be_is_refused() -> None:
    with pytest.raises(BadInputError, match="sample_rate is 0; wanted 1000 to 384000 Hz"):
        _run(_services(), speech(sample_rate=0))


def test_semantic_repairs_the_text_and_tone_changes_the_voice() -> None:
    services = _services()
    services.refines("en")(lambda text, lang: f"{text} repaired")
    services.imitates()(lambda sound, speaker: Audio(data=sound.data + speaker.data[:2], sample_rate=8000))
    whole = Services()
    whole.speaks("pt", service_id="wav")(lambda text, lang: Audio(data=b"\7\0", sample_rate=8000))
    whole.include(services)
    done = _run(whole, speech(pipeline=Pipeline(use_semantic=True, use_tone=True)))
    assert done.text_translated == "hello repaired en>pt"
    assert done.speech == Audio(data=b"\7\0\0\0", sample_rate=8000).to_wav()
    assert set(done.timings) == {"asr_ms", "semantic_ms", "nmt_ms", "tts_ms", "tone_ms"}


def test_bytes_that_are_no_wav_are_no_speech() -> None:
    services = Services()
    services.recognises("en")(lambda audio: "hello")
    services.translates(("en", "pt"))(lambda text, src, tgt: text)
    services.speaks("pt", service_id="bad")(lambda text, lang: b"MP3")
    with pytest.raises(ServiceError, match="bad returned bytes; wanted an Audio"):
        _run(services, speech(pipeline=FULL))


def test_a_plain_function_may_return_something_to_wait_for() -> None:
    async def later(text: str) -> str:
        return text.upper()

    services = Services()
    services.translates(("en", "pt"))(lambda text, src, tgt: later(text))
    assert _run(services, assign()).text_translated == "HELLO"
