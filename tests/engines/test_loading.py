"""What does `--engines` accept, and what does it say to what it does not?"""

import sys
from pathlib import Path

import pytest

from dragoman.core.capability import Service
from dragoman.engines import echo, recognition, speech, translation
from dragoman.engines.loading import EngineError, load
from dragoman.node import Services


def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    name = f"engine_of_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return name


def test_several_engines_are_merged_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
from dragoman.node import Services
def make():
    services = Services()
    services.translates(("en", "fy"), service_id="mine")(lambda text, src, tgt: text)
    return services
"""
    name = _module(tmp_path, monkeypatch, source)
    services = load(f"{name}:make, echo")
    assert [offer.service_id for offer in services.offers] == ["mine", "asr-echo", "nmt-echo", "tts-echo"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", "names nothing"),
        ("ofline", "no engine 'ofline'; wanted offline, echo or package.module:factory"),
        ("a:b:c", "no engine 'a:b:c'"),
        ("no.such.module:make", "failed: ModuleNotFoundError: No module named 'no'"),
        ("json:nothing", "module 'json' has no attribute 'nothing'"),
        ("json:dumps", "failed: TypeError"),
        ("os:getcwd", "gave str; wanted dragoman.node.Services"),
        ("echo,echo", "two services are called 'asr-echo'"),
    ],
)
def test_a_bad_name_is_refused_and_says_why(names: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        load(names)


def test_engines_without_a_service_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.engines.offline.services", lambda parallel: Services())
    with pytest.raises(EngineError, match="none of them has a service here"):
        load("offline")


def test_a_missing_package_makes_its_service_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    speech._espeak.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    for service, engine in (
        (Service.ASR, recognition.services()),
        (Service.NMT, translation.services()),
        (Service.TTS, speech.services()),
    ):
        assert engine.offers == ()
        assert "not installed" in engine.why_absent(service)


def test_echo_serves_the_pairs_it_is_given() -> None:
    services = echo.services(languages=["en", "pt"], pairs=[("en", "pt")])
    model = services.of(Service.NMT)[0].model
    assert model is not None
    assert [(str(src), str(tgt)) for src, tgt in model.supported] == [("en", "pt")]
