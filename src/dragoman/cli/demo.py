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


def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the spoken translations go.")] = Path(
        "demo-output"
    ),
) -> None:
    """Start a scheduler and three nodes with real engines, translate speech and text, and show what happened.

    Exit code 0 only if every result came and the known sentences were understood. Needs dragoman[offline].

    Example: dragoman demo --output /tmp/spoken
    """
    from rich.console import Console

    from dragoman.demo import DemoError, give_demo

    progress = Console(stderr=True)
    with progress.status("dragoman demo") as status:
        try:
            outcomes = give_demo(output, lambda text: _tell(progress, status.update, text))
        except DemoError as error:
            raise CommandError(str(error)) from error
    _print_table(outcomes)
    typer.echo(f"The spoken translations are in {output}/")
    misheard = [outcome for outcome in outcomes if not outcome.is_understood]
    if misheard:
        raise CommandError(f"{len(misheard)} of {len(outcomes)} were not understood")
    typer.echo(_NEXT_STEPS)


def _tell(progress: object, update: object, text: str) -> None:
    if progress.is_terminal:  # type: ignore[attr-defined]
        update(text)  # type: ignore[operator]
    else:
        typer.echo(text, err=True)


def _print_table(outcomes: list[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What was said, heard and translated", show_lines=True)
    for heading in ("", "said", "heard", "translated", "node"):
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
            outcome.node_id,
            f"{stages} = {(result.elapsed_s or 0) * 1000:.0f}",
        )
    Console(width=None if Console().is_terminal else 140).print(table)
