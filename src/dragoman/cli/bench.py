"""The command `dragoman bench`: what does a job cost here?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dragoman.cli.outcome import WRONG_USE, CommandError

if TYPE_CHECKING:
    from rich.table import Table

    from dragoman.bench.roundtrip import Options, Run
    from dragoman.bench.selection import Choice, Upkeep

bench = typer.Typer(
    name="bench",
    invoke_without_command=True,
    help="Measure what a job costs: processor time per job, latency, throughput.",
    epilog="Example: dragoman bench --store valkey --instances 1 --instances 2 --in-flight 64 --runs 3 --json",
)

_InFlight = Annotated[list[int] | None, typer.Option("--in-flight", min=1, help="Jobs in flight; may be repeated.")]
_Instances = Annotated[
    list[int] | None,
    typer.Option("--instances", min=1, max=16, metavar="N", help="Instances that share the work; may be repeated."),
]
_Store = Annotated[
    Literal["memory", "valkey", "cluster"],
    typer.Option(help="Where jobs are kept: in the instance, in a Valkey, or in a Redis Cluster of 3 masters."),
]
_Runs = Annotated[int, typer.Option(min=1, help="Runs of each; the median is what counts.")]
_Seconds = Annotated[float, typer.Option("--seconds", min=0.1, help="Seconds a run lasts.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
_Msgpack = Annotated[bool, typer.Option("--msgpack", help="Speak MessagePack instead of JSON.")]
_SameInstance = Annotated[
    bool,
    typer.Option(
        "--same-instance", help="Sessions at the instance of their nodes; else, with many instances, at another."
    ),
]

_IN_FLIGHT = (64, 256)
_WARM_UP_S = 1.5


@bench.callback()
def roundtrip(
    context: typer.Context,
    store: _Store = "memory",
    instances: _Instances = None,
    in_flight: _InFlight = None,
    runs: _Runs = 3,
    seconds: _Seconds = 4.0,
    *,
    same_instance: _SameInstance = False,
    msgpack: _Msgpack = False,
    as_json: _Json = False,
) -> None:
    """Measure the round trip of a job: session, choice among 64 nodes of 16 pairs, node, session.

    A Valkey or Redis Cluster is started for it, which needs dragoman[valkey].
    """
    from dragoman.bench.roundtrip import Options

    if context.invoked_subcommand is not None:
        return
    if store == "memory" and max(instances or [1]) > 1:
        raise CommandError("--instances: many instances need a store that they share: --store valkey", WRONG_USE)
    options = [
        Options(
            in_flight=jobs,
            runs=runs,
            warm_up_s=_WARM_UP_S,
            run_s=seconds,
            is_binary=msgpack,
            store=store,
            instances=count,
            is_same_instance=same_instance,
        )
        for count, jobs in product(instances or [1], in_flight or _IN_FLIGHT)
    ]
    _measure("round trip", options, as_json=as_json)


@bench.command()
def floor(
    store: _Store = "memory",
    in_flight: _InFlight = None,
    runs: _Runs = 3,
    seconds: _Seconds = 4.0,
    *,
    as_json: _Json = False,
) -> None:
    """Measure the floor: the same frames through the same WebSocket library, with no scheduler between.

    With a Valkey or Redis Cluster, also two small scripts for each job on one bare connection.

    Example: dragoman bench floor --store valkey --in-flight 64
    """
    from dragoman.bench.roundtrip import Options

    options = [
        Options(in_flight=jobs, runs=runs, warm_up_s=_WARM_UP_S, run_s=seconds, store=store)
        for jobs in in_flight or _IN_FLIGHT
    ]
    _measure("floor", options, as_json=as_json)


@bench.command()
def selection(
    nodes: Annotated[list[int] | None, typer.Option(min=16, help="Nodes in the fleet; may be repeated.")] = None,
    pools: Annotated[list[int] | None, typer.Option(min=1, max=500, help="Pools they are in; may be repeated.")] = None,
    *,
    as_json: _Json = False,
) -> None:
    """Measure the choice of a node alone, in fleets of growing size, with pools and without; then their upkeep.

    Example: dragoman bench selection --nodes 100 --nodes 100000 --pools 16
    """
    import msgspec
    from rich.console import Console

    from dragoman.bench.selection import POOLS, measure_choices, measure_upkeep

    progress = Console(stderr=True)
    sizes = list(product(pools or POOLS, nodes or [100, 1_000, 10_000, 100_000]))
    choices, upkeep = [], []
    for parts, count in sizes:
        with progress.status(f"{count:,} nodes, {parts} pools"):
            choices += [measure_choices(count, parts, is_by_pools=is_by_pools) for is_by_pools in (True, False)]
            upkeep.append(measure_upkeep(count, parts))
    if as_json:
        report = {"what": "selection", "machine": _machine(), "choices": choices, "upkeep": upkeep}
        typer.echo(msgspec.json.encode(report).decode())
        return
    _print_choices(choices, upkeep)


def _print_choices(choices: Sequence[Choice], upkeep: Sequence[Upkeep]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"choice of a node: {_machine()}")
    for heading in ("nodes", "pools", "by pools", "choose, µs", "choose, take and give back, µs"):
        table.add_column(heading, justify="right")
    for choice in choices:
        by_pools = "yes" if choice.is_by_pools else "no"
        figures = (f"{choice.choose_us:.1f}", f"{choice.choose_and_keep_us:.1f}")
        table.add_row(f"{choice.nodes:,}", str(choice.pools), by_pools, *figures)
    Console().print(table)
    table = Table(title=f"upkeep of the pools: {_machine()}")
    for heading in ("nodes", "pools", "register, µs", "change, µs", "leave, µs", "of a core at 1,000/s"):
        table.add_column(heading, justify="right")
    for kept in upkeep:
        steps = [f"{spent_us:.1f}" for spent_us in (kept.register_us, kept.change_us, kept.leave_us)]
        table.add_row(f"{kept.nodes:,}", str(kept.pools), *steps, f"{kept.core_at_1000_per_s:.1%}")
    Console().print(table)


def _measure(what: Literal["round trip", "floor"], measured: Sequence[Options], *, as_json: bool) -> None:
    import msgspec
    from rich.console import Console

    from dragoman.bench.roundtrip import measure_floor, measure_roundtrip, median_of
    from dragoman.children import ChildError
    from dragoman.embedded import EmbeddedError
    from dragoman.loop import run

    measure = measure_floor if what == "floor" else measure_roundtrip
    progress = Console(stderr=True)
    found: list[tuple[Options, list[Run]]] = []
    for options in measured:
        title = f"{what}, {_named(options)}"
        with progress.status(f"{title}: warming up") as status:

            def told(done: Run, title: str = title, status: object = status) -> None:
                status.update(f"{title}: {done.jobs_per_s:,.0f} jobs/s")  # type: ignore[attr-defined]

            try:
                found.append((options, run(measure(options, told))))
            except (ChildError, EmbeddedError) as error:
                raise CommandError(f"{title}: {error}") from error
    if as_json:
        measurements = [
            {
                "store": options.store,
                "instances": options.instances,
                "is_same_instance": options.is_same_instance or options.instances == 1,
                "in_flight": options.in_flight,
                "runs": runs,
                "median": median_of(runs),
            }
            for options, runs in found
        ]
        report = {"what": what, "machine": _machine(), "measurements": measurements}
        typer.echo(msgspec.json.encode(report).decode())
        return
    _print_table(what, found)


def _named(options: Options) -> str:
    count = options.instances
    where = "" if count == 1 else " at the node's instance" if options.is_same_instance else " at another instance"
    many = f", {count} instances, sessions{where}" if count > 1 else ""
    return f"store {options.store}{many}, {options.in_flight} in flight"


def _print_table(what: str, found: Sequence[tuple[Options, list[Run]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from dragoman.bench.roundtrip import median_of

    options = found[0][0]
    sessions = "" if what == "floor" or not options.is_same_instance else ", sessions at the instance of their nodes"
    table = Table(title=f"{what}, store {options.store}{sessions}: {_machine()}")
    table.add_column("instances", justify="right")
    for heading in ("in flight", "run", "jobs/s"):
        table.add_column(heading, justify="right")
    for heading in ("server" if what == "floor" else "scheduler", "store", "load", "all"):
        table.add_column(f"{heading} CPU µs/job", justify="right")
    for heading in ("p50 ms", "p99 ms", "failed"):
        table.add_column(heading, justify="right")
    for case, runs in found:
        for number, run in enumerate(runs, 1):
            _add_row(table, case, str(number), run)
        _add_row(table, case, "median", median_of(runs), style="bold")
        table.add_section()
    Console(width=None if Console().is_terminal else 140).print(table)
    for options, runs in found:
        if said := median_of(runs).last_failure:
            typer.echo(f"failed, {_named(options)}, the last one: {said}", err=True)


def _add_row(table: Table, options: Options, name: str, run: Run, *, style: str | None = None) -> None:
    table.add_row(
        str(options.instances),
        str(options.in_flight),
        name,
        f"{run.jobs_per_s:,.0f}",
        f"{run.server_us_per_job:.1f}",
        f"{run.store_us_per_job:.1f}",
        f"{run.load_us_per_job:.1f}",
        f"{run.total_us_per_job:.1f}",
        f"{run.p50_ms:.2f}",
        f"{run.p99_ms:.2f}",
        str(run.failures),
        style=style,
    )


def _machine() -> str:
    import os
    import platform

    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
