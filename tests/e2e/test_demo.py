"""The demo is the first thing that anybody sees: real engines, real speech, and what it claims is true."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from dragoman.children import Child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_the_demo_understands_its_script_and_saves_what_was_spoken(tmp_path: Path) -> None:
    with Child("demo", ["-m", "dragoman", "demo", "--output", str(tmp_path)]) as demo:
        code, said = demo.wait(150), demo.said()
    assert code == 0, said
    for command in ("dragoman serve", "dragoman node", "dragoman translate"):
        assert command in said
    assert "✗" not in said
    saved = sorted(tmp_path.glob("*.wav"))
    assert len(saved) == 9
    for path in saved:
        with wave.open(str(path)) as wav:
            assert wav.getnframes() / wav.getframerate() > 0.5
