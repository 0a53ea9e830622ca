"""The benchmarks run and tell figures that can be true; how fast is no matter of tests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from dragoman.cli.program import build_program

QUICK = ("--in-flight", "4", "--runs", "1", "--seconds", "0.5")


def _report(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(build_program(), ["bench", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--msgpack",)])
def test_the_round_trip_is_measured_and_no_job_fails(arguments: tuple[str, ...]) -> None:
    (measured,) = _report(*QUICK, *arguments)["measurements"]
    (run,) = measured["runs"]
    assert run["jobs"] > 0
    assert run["failures"] == 0
    assert run["server_us_per_job"] > 0
    assert run["store_us_per_job"] == 0
    assert measured["median"] == run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "arguments"), [("valkey", ()), ("valkey", ("--same-instance",)), ("cluster", ())], ids=str
)
def test_two_instances_over_a_shared_store_are_measured_and_no_job_fails(
    store: str, arguments: tuple[str, ...]
) -> None:
    (measured,) = _report("--store", store, "--instances", "2", *QUICK, *arguments)["measurements"]
    (run,) = measured["runs"]
    assert (measured["store"], measured["instances"], measured["in_flight"]) == (store, 2, 4)
    assert run["jobs"] > 0
    assert run["failures"] == 0
    assert run["store_us_per_job"] > 0
    parts = [run[f"{part}_us_per_job"] for part in ("server", "store", "load")]
    assert run["total_us_per_job"] == pytest.approx(sum(parts))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["memory", "valkey", "cluster"])
def test_the_floor_is_measured(store: str) -> None:
    (measured,) = _report("floor", "--store", store, *QUICK)["measurements"]
    (run,) = measured["runs"]
    assert run["jobs"] > 0
    assert run["failures"] == 0
    assert (run["store_us_per_job"] > 0) is (store != "memory")


def test_many_instances_without_a_shared_store_are_refused() -> None:
    result = CliRunner().invoke(build_program(), ["bench", "--instances", "2"])
    assert result.exit_code == 2
    assert "--store valkey" in result.output


def test_the_choice_is_measured() -> None:
    report = _report("selection", "--nodes", "64", "--pools", "16")
    choice, without = report["choices"]
    (upkeep,) = report["upkeep"]
    assert (choice["is_by_pools"], without["is_by_pools"]) == (True, False)
    assert upkeep["core_at_1000_per_s"] > 0
    assert choice["nodes"] == 64
