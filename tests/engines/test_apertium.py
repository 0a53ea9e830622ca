"""Does the node find the pairs of Apertium and use them? With a program that stands in for it."""

import os
from pathlib import Path

import pytest

from dragoman import loop
from dragoman.core.capability import Service
from dragoman.engines.translation import _add_apertium, _read_modes
from dragoman.node import ServiceError, Services

_PROGRAM = """#!/bin/sh
if [ "$1" = -l ]; then printf '  eng-spa\\n  spa-cat_valencia\\n  en-eo\\nspa-eng\\n'; exit; fi
if [ "$2" = spa-eng ]; then exit 3; fi
if [ "$2" = en-eo ]; then sleep 60; fi
printf '%s: ' "$1 $2"; cat /dev/stdin
"""


@pytest.fixture
def apertium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    program = tmp_path / "apertium"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    services = Services()
    assert _add_apertium(services) == ""
    return services


def _translate(services: Services, text: str, src: str, tgt: str) -> str:
    async def run() -> str:
        answer: str = await services.of(Service.NMT)[0].function(text, src, tgt)
        return answer

    # The product's own event loop: it gives a child a socket where another gives it a pipe.
    return loop.run(run())


def test_three_letter_codes_become_pairs_and_varieties_are_left_out() -> None:
    assert _read_modes("eng-spa\n  fra-cat_valencia\nnot a mode\nsme-nob\n") == {
        ("en", "es"): "eng-spa",
        ("se", "nb"): "sme-nob",
    }


def test_the_text_goes_in_and_the_translation_comes_out(apertium: Services) -> None:
    assert _translate(apertium, "$(rm -rf x) ¡hola!\n", "en-GB", "es-MX") == "-u eng-spa: $(rm -rf x) ¡hola!"


def test_a_program_that_fails_fails_the_job(apertium: Services) -> None:
    with pytest.raises(ServiceError, match="ended with 3; wanted 0"):
        _translate(apertium, "hola", "es", "en")


def test_a_program_that_hangs_is_stopped(apertium: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.engines.translation._TRANSLATE_LIMIT_S", 0.1)
    with pytest.raises(ServiceError, match="NMT_TIMEOUT"):
        _translate(apertium, "hello", "en", "eo")


def test_without_the_program_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert _add_apertium(Services()) == "no program apertium on the PATH"
