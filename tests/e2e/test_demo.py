"""The demo is the first thing that anybody sees: real engines, real speech, and what it claims is true."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import pytest

from dragoman.children import Child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def _give_demo(folder: Path, *arguments: str) -> str:
    with Child("demo", ["-m", "dragoman", "demo", "--output", str(folder), *arguments]) as demo:
        code, said = demo.wait(150), demo.said()
    assert code == 0, said
    assert "✗" not in said
    return said


def test_the_demo_understands_its_script_and_saves_what_was_spoken(tmp_path: Path) -> None:
    said = _give_demo(tmp_path)
    for command in ("dragoman serve", "dragoman node", "dragoman translate"):
        assert command in said
    saved = sorted(tmp_path.glob("*.wav"))
    assert len(saved) == 9
    for path in saved:
        with wave.open(str(path)) as wav:
            assert wav.getnframes() / wav.getframerate() > 0.5


def test_with_many_instances_each_job_goes_from_one_to_another(tmp_path: Path) -> None:
    said = _give_demo(tmp_path, "--instances", "2")
    assert len(re.findall(r"│ i2 +│ node-\d at i1 │", said)) == 9
    assert "dragoman cluster --instances 2" in said
    assert len(list(tmp_path.glob("*.wav"))) == 9
