"""What does docs/configuration.md hold?"""

from __future__ import annotations

import typer


def config_reference() -> None:
    """Print docs/configuration.md, made from the settings.

    Example: dragoman config-reference > docs/configuration.md
    """
    from dragoman.config.reference import configuration_reference

    typer.echo(configuration_reference(), nl=False)
