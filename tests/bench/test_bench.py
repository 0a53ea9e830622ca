"""The benchmarks run and tell figures that can be true; how fast is no matter of tests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from dragoman.cli.program import build_program


def _report(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(build_program(), ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--msgpack",)])
def test_the_round_trip_is_measured_and_no_job_fails(arguments: tuple[str, ...]) -> None:
    report = _report("--in-flight", "4", "--runs", "1", "--seconds", "0.5", *arguments)
    (run,) = report["in_flight"]["4"]
    assert run["jobs"] > 0
    assert run["failures"] == 0
    assert run["server_us_per_job"] > 0


@pytest.mark.slow
def test_the_floor_is_measured() -> None:
    report = _report("floor", "--in-flight", "4", "--runs", "1", "--seconds", "0.5")
    (run,) = report["in_flight"]["4"]
    assert run["jobs"] > 0
    assert run["failures"] == 0


def test_the_choice_is_measured() -> None:
    report = _report("selection", "--nodes", "64")
    (choice,) = report["choices"]
    assert choice["nodes"] == 64
