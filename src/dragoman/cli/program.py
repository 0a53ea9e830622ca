"""Which commands are there, and what becomes of an error in one? To add a command, add it to COMMANDS."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import typer
from typer.core import TyperGroup

from dragoman import __version__
from dragoman.cli.bench import bench
from dragoman.cli.check_config import check_config
from dragoman.cli.cluster import cluster
from dragoman.cli.config_reference import config_reference
from dragoman.cli.config_schema import config_schema
from dragoman.cli.demo import demo
from dragoman.cli.node import node
from dragoman.cli.outcome import FAILED, WRONG_USE, CommandError
from dragoman.cli.print_config import print_config
from dragoman.cli.serve import serve
from dragoman.cli.translate import translate
from dragoman.config.problems import ConfigError

Command: TypeAlias = Callable[..., None]

COMMANDS: Final[tuple[Command | typer.Typer, ...]] = (
    demo,
    serve,
    cluster,
    node,
    translate,
    bench,
    check_config,
    print_config,
    config_schema,
)
"""In the order of `dragoman --help`. A function, named like its command; or a Typer with a name, for a group."""

HIDDEN_COMMANDS: Final[tuple[Command, ...]] = (config_reference,)
"""For the makers of dragoman."""


class Program(TyperGroup):
    """A group of commands whose errors are a line and an exit code, never a traceback unless asked for."""

    def main(self, *args: Any, **options: Any) -> Any:
        """See TyperGroup; wrong use is told in one line too."""
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})
        except typer.TyperException as error:
            typer.echo(f"{error.format_message()} ('dragoman --help' lists what there is)", err=True)
            sys.exit(error.exit_code)
        except typer.Abort:
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """See TyperGroup."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise typer.Exit(_tell(error)) from error


def build_program(commands: tuple[Command | typer.Typer, ...] = COMMANDS) -> typer.Typer:
    """The program with these commands, and the hidden ones."""
    # Plain help: rich would take longer to import than the rest of the start.
    program = typer.Typer(
        name="dragoman",
        cls=Program,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback()(_dragoman)
    for command in commands:
        if isinstance(command, typer.Typer):
            program.add_typer(command)
        else:
            program.command()(command)
    for command in HIDDEN_COMMANDS:
        program.command(hidden=True)(command)
    return program


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"dragoman {__version__}")
        raise typer.Exit


def _dragoman(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Real-time speech translation over many worker nodes: the scheduler, its nodes and its tools.

    Example: dragoman check-config dragoman.toml
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(WRONG_USE)


def _tell(error: Exception) -> int:
    """Say what happened, in as few lines as there are things to say; the exit code."""
    match error:
        case ConfigError():
            typer.echo(str(error), err=True)
            return WRONG_USE
        case CommandError(exit_code=code):
            typer.echo(str(error), err=True)
            return code
        case _:
            said = " ".join(str(error).split())
            typer.echo(f"{type(error).__name__}: {said} ('dragoman --debug …' shows where)", err=True)
            return FAILED
