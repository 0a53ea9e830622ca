"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "dragoman").rglob("*.py"))
LINES_MAX = 420
FUNCTION_LINES_MAX = 60
KEPT_NAMES = (
    "scheduler_phase2_",
    '"Phase2 enabled"',
    "dragoman.config.phase2 import",
    "settings: Phase2Settings",
    '"phase3_pool_',
    '"Phase3 two-level scheduling"',
    ":phase3:pools:config",
)
"""Names that operators look for, and the place where the settings have theirs."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_says_first_what_it_is_for_and_is_short_enough_to_read(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first line is the question the file answers"
    assert text.count("\n") <= LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_function_is_one_thought(path: Path) -> None:
    too_long = [
        f"{node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_the_names_of_the_phases_live_in_the_configuration_only(path: Path) -> None:
    if "config" in path.parts:
        return
    said = [
        line
        for line in path.read_text().splitlines()
        if re.search(r"phase[_ ]?[23]", line, re.IGNORECASE)
        and "settings." not in line
        and "scheduler.phase" not in line
        and not any(kept in line for kept in KEPT_NAMES)
    ]
    assert said == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_only_app_wires_a_store(path: Path) -> None:
    if path.name == "app.py" or path.parent.name == "memory":
        return
    assert "MemoryStore(" not in path.read_text()


def _documents() -> Iterator[Path]:
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "src/**/*.py",
        "tests/**/*.py",
        "examples/*.py",
        "Makefile",
        "pyproject.toml",
    ):
        yield from sorted(ROOT.glob(pattern))


@pytest.mark.parametrize("path", list(_documents()), ids=_name)
def test_the_project_speaks_of_itself_alone(path: Path) -> None:
    if path == Path(__file__):
        return
    found = re.findall(r"\.\./shared|/work/|/tmp/lab|/root/", path.read_text())
    assert found == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")), ids=_name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target
