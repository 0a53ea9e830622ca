"""Which options do all commands share that read the configuration?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from dragoman.config.settings import Settings

ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML file; without one, the defaults.")
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one key, over file and environment; may be repeated."),
]


def settings_from(config: Path | None, overrides: list[str] | None) -> Settings:
    """The settings that a command was started with. Raises ConfigError, which the program answers."""
    from dragoman.config.file import load_settings

    return load_settings(config, os.environ, overrides or ())
