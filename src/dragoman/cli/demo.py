"""Does it work here? Speech in, translated speech out, with everything on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.outcome import CommandError

if TYPE_CHECKING:
    from dragoman.demo import Outcome

_NEXT_STEPS = """
Now by hand, in three terminals:
  dragoman serve
  dragoman node --engines offline
  dragoman translate --src en --tgt pt --text "Good morning" --save-audio good-morning.wav
"""


_NEXT_STEPS_OF_MANY = """
Now by hand, with nodes and sessions at any instance:
  dragoman cluster --instances {instances}
"""


def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the spoken translations go.")] = Path(
        "demo-output"
    ),
    instances: Annotated[
        int,
        typer.Option(
            "--instances",
            min=1,
            max=16,
            metavar="N",
            help="Scheduler instances that share the work; nodes are at some, sessions at the others.",
        ),
    ] = 1,
) -> None:
    """Start a scheduler and three nodes with real engines, translate speech and text, and show what happened.

    Exit code 0 only if every result came and the known sentences were understood. Needs dragoman[offline], and with
    many instances dragoman[valkey] too: they share a Valkey that is started for them.

    Example: dragoman demo --output /tmp/spoken --instances 3
    """
    from rich.console import Console

    from dragoman.demo import DemoError, give_demo

    progress = Console(stderr=True)
    with progress.status("dragoman demo") as status:
        try:
            outcomes = give_demo(output, lambda text: _tell(progress, status.update, text), count=instances)
        except DemoError as error:
            raise CommandError(str(error)) from error
    _print_table(outcomes, shows_instances=instances > 1)
    typer.echo(f"The spoken translations are in {output}/")
    misheard = [outcome for outcome in outcomes if not outcome.is_understood]
    if misheard:
        raise CommandError(f"{len(misheard)} of {len(outcomes)} were not understood")
    typer.echo(_NEXT_STEPS if instances == 1 else _NEXT_STEPS_OF_MANY.format(instances=instances))


def _tell(progress: object, update: object, text: str) -> None:
    if progress.is_terminal:  # type: ignore[attr-defined]
        update(text)  # type: ignore[operator]
    else:
        typer.echo(text, err=True)


def _print_table(outcomes: list[Outcome], *, shows_instances: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What was said, heard and translated", show_lines=True)
    for heading in ("", "said", "heard", "translated", *(("session at",) if shows_instances else ()), "node"):
        table.add_column(heading)
    table.add_column("ms: hear / translate / speak = all", justify="right")
    for outcome in outcomes:
        line, result = outcome.line, outcome.translation
        timings = [result.service_timings.get(name) for name in ("asr_ms", "nmt_ms", "tts_ms")]
        stages = " / ".join("-" if spent is None else f"{spent:.0f}" for spent in timings)
        table.add_row(
            "✓" if outcome.is_understood else "✗",
            f"{line.src}: {line.text}" + (" (spoken)" if line.is_spoken else ""),
            result.recognised.strip() or "-",
            f"{line.tgt}: {result.translated}",
            *(
                (outcome.session_at, f"{outcome.node_id} at {outcome.node_at}")
                if shows_instances
                else (outcome.node_id,)
            ),
            f"{stages} = {(result.elapsed_s or 0) * 1000:.0f}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)
