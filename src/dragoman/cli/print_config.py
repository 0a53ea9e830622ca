"""What is set, when everything is put together?"""

from __future__ import annotations

import typer

from dragoman.cli.config_options import ConfigFile, Overrides, settings_from


def print_config(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print every setting as TOML: file, environment and --set put together, passwords masked.

    Example: dragoman print-config --config dragoman.toml --set server.port=6000
    """
    from dragoman.config.toml_text import settings_to_toml

    typer.echo(settings_to_toml(settings_from(config, overrides)), nl=False)
