"""The command `dragoman bench`: what does a job cost here?"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dragoman.bench.roundtrip import Run

bench = typer.Typer(
    name="bench",
    invoke_without_command=True,
    help="Measure what a job costs: processor time per job, latency, throughput.",
    epilog="Example: dragoman bench --in-flight 64 --in-flight 256 --runs 3 --json",
)

_InFlight = Annotated[list[int] | None, typer.Option("--in-flight", min=1, help="Jobs in flight; may be repeated.")]
_Runs = Annotated[int, typer.Option(min=1, help="Runs of each; the median is what counts.")]
_Seconds = Annotated[float, typer.Option("--seconds", min=0.1, help="Seconds a run lasts.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
_Msgpack = Annotated[bool, typer.Option("--msgpack", help="Speak MessagePack instead of JSON.")]


@bench.callback()
def roundtrip(
    context: typer.Context,
    in_flight: _InFlight = None,
    runs: _Runs = 3,
    seconds: _Seconds = 4.0,
    *,
    msgpack: _Msgpack = False,
    as_json: _Json = False,
) -> None:
    """Measure the round trip of a job: session, choice among 64 nodes of 16 pairs, node, session. Memory store."""
    if context.invoked_subcommand is None:
        _measure("round trip", in_flight or [64, 256], runs, seconds, msgpack=msgpack, as_json=as_json)


@bench.command()
def floor(in_flight: _InFlight = None, runs: _Runs = 3, seconds: _Seconds = 4.0, *, as_json: _Json = False) -> None:
    """Measure the floor: the same frames through the same WebSocket library, with no scheduler between.

    Example: dragoman bench floor --in-flight 64
    """
    _measure("floor", in_flight or [64, 256], runs, seconds, msgpack=False, as_json=as_json)


@bench.command()
def selection(
    nodes: Annotated[list[int] | None, typer.Option(min=16, help="Nodes in the fleet; may be repeated.")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Measure the choice of a node alone, in fleets of growing size.

    Example: dragoman bench selection --nodes 100 --nodes 100000
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from dragoman.bench.selection import measure_choices

    progress = Console(stderr=True)
    choices = []
    for count in nodes or [100, 1_000, 10_000, 100_000]:
        with progress.status(f"{count:,} nodes"):
            choices.append(measure_choices(count))
    if as_json:
        report = {"what": "selection", "machine": _machine(), "choices": choices}
        typer.echo(msgspec.json.encode(report).decode())
        return
    table = Table(title=f"choice of a node: {_machine()}")
    for heading in ("nodes", "choose, µs", "choose, take and give back, µs"):
        table.add_column(heading, justify="right")
    for choice in choices:
        table.add_row(f"{choice.nodes:,}", f"{choice.choose_us:.1f}", f"{choice.choose_and_keep_us:.1f}")
    Console().print(table)


def _measure(what: str, in_flight: list[int], runs: int, seconds: float, *, msgpack: bool, as_json: bool) -> None:
    import msgspec
    from rich.console import Console

    from dragoman.bench.roundtrip import Options, measure_floor, measure_roundtrip
    from dragoman.loop import run

    progress = Console(stderr=True)
    measured: dict[int, list[Run]] = {}
    for count in in_flight:
        options = Options(in_flight=count, runs=runs, warm_up_s=1.5, run_s=seconds, is_binary=msgpack)
        with progress.status(f"{what}, {count} in flight: warming up") as status:

            def told(done: Run, count: int = count, status: object = status) -> None:
                status.update(f"{what}, {count} in flight: {done.jobs_per_s:,.0f} jobs/s")  # type: ignore[attr-defined]

            measure = measure_floor if what == "floor" else measure_roundtrip
            measured[count] = run(measure(options, told))
    if as_json:
        report = {"what": what, "machine": _machine(), "in_flight": {str(key): runs for key, runs in measured.items()}}
        typer.echo(msgspec.json.encode(report).decode())
        return
    _print_table(what, measured)


def _print_table(what: str, measured: dict[int, list[Run]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{what}: medians of {len(next(iter(measured.values())))} runs, {_machine()}")
    for heading in ("in flight", "jobs/s", "server CPU µs/job", "load CPU µs/job", "p50 ms", "p99 ms", "failed"):
        table.add_column(heading, justify="right")
    for count, runs in measured.items():
        table.add_row(
            str(count),
            f"{median(run.jobs_per_s for run in runs):,.0f}",
            f"{median(run.server_us_per_job for run in runs):.1f}",
            f"{median(run.load_us_per_job for run in runs):.1f}",
            f"{median(run.p50_ms for run in runs):.2f}",
            f"{median(run.p99_ms for run in runs):.2f}",
            str(sum(run.failures for run in runs)),
        )
    Console().print(table)


def _machine() -> str:
    import os
    import platform

    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
