"""The README tells the truth: its examples are the files it names, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("example", ["own_node", "own_client"])
def test_the_readme_shows_the_examples_as_they_are(example: str) -> None:
    shown = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert (ROOT / "examples" / f"{example}.py").read_text() in shown


def test_each_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)) <= targets
