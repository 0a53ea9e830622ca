"""Is this configuration good?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dragoman.cli.config_options import Overrides, settings_from


def check_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML file.")],
    overrides: Overrides = None,
) -> None:
    """Check a configuration, with the environment and --set over it, and start nothing.

    Example: dragoman check-config dragoman.toml --set scheduler.phase3.enabled=true
    """
    from dragoman.config.unbuilt import unbuilt_features

    settings = settings_from(file, overrides)
    for sentence in unbuilt_features(settings):
        typer.echo(f"note: {sentence}")
    typer.echo(f"{file}: good")
