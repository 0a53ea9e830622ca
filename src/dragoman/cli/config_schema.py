"""What may a configuration file hold, for an editor?"""

from __future__ import annotations

import typer


def config_schema() -> None:
    """Print the JSON Schema of the configuration file.

    Example: dragoman config-schema > dragoman.schema.json
    """
    import json

    from dragoman.config.settings import Settings

    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    typer.echo(json.dumps(schema, indent=2))
