"""Does each script that runs inside the server say what it needs and answers, and does it load?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman.embedded import EmbeddedValkey, single_valkey
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.store import SCRIPTS

FOLDER = Path(__file__).parents[2] / "src" / "dragoman" / "store" / "redis" / "lua"
FILES = sorted(FOLDER.glob("*.lua"))
LINES_MAX = 40


def _name(path: Path) -> str:
    return path.stem


def _said(path: Path, what: str) -> str:
    """What the head of a script says of its keys, arguments or answers; it may go on in lines that are set in."""
    (said,) = re.findall(rf"^-- {what}: (.*(?:\n--  +.*)*)", path.read_text(), re.MULTILINE)
    return " ".join(line.removeprefix("--").strip() for line in said.splitlines())


def _names(said: str) -> tuple[list[str], bool]:
    """The keys or arguments that are named, and whether there may be more of them."""
    without_notes = re.sub(r"\([^()]*\)", "", said)
    first, _, more = without_notes.partition("then ")
    return [name.strip() for name in first.split(",") if name.strip()], bool(more)


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with single_valkey() as valkey:
        yield valkey


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_script_says_first_what_it_does(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert re.match(r"-- [A-Z].*[.?]$", lines[0])
    heads = [re.match(r"-- (KEYS|ARGV|Answers): \S", line) for line in lines[1:8]]
    assert [head[1] for head in heads if head] == ["KEYS", "ARGV", "Answers"]
    assert len(lines) <= LINES_MAX


@pytest.mark.parametrize("what", ["KEYS", "ARGV"])
@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_script_uses_all_that_it_names_and_nothing_else(path: Path, what: str) -> None:
    names, has_more = _names(_said(path, what))
    code = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("--"))
    used = {int(number) for number in re.findall(rf"{what}\[(\d+)\]", code)}
    ranges = re.findall(rf"for i = (\d+), (\d+) do(?:(?!\bend\b)[\s\S])*?{what}\[i\]", code)
    used |= {number for first, last in ranges for number in range(int(first), int(last) + 1)}
    wanted = set(range(1, len(names) + 1))
    assert wanted <= used or f"unpack({what})" in code
    assert used <= wanted or has_more


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_a_script_loads(path: Path, valkey: EmbeddedValkey) -> None:
    script = load_script(path.stem)
    assert valkey.call("SCRIPT", "LOAD", script.text) == script.sha1


def test_every_script_is_loaded_with_the_connection() -> None:
    assert {script.name for script in SCRIPTS} == {path.stem for path in FILES}
