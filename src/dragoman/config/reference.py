"""What does docs/configuration.md say? It is written from the models, never by hand."""

from __future__ import annotations

from collections.abc import Iterator

from dragoman.config.keys import Key, SectionKeys, all_sections, variable_name
from dragoman.config.settings import Settings
from dragoman.config.sources import OTHER_VARIABLES
from dragoman.config.toml_text import value_to_toml
from dragoman.config.unbuilt import unbuilt_features

_BEGINNING = """# Configuration

<!-- Made by `make docs` from src/dragoman/config: change it there. -->

Nothing has to be set: `dragoman serve` alone is one instance with everything in memory. Settings come from three
places, the later winning:

1. one TOML file: `dragoman serve --config dragoman.toml`;
2. environment variables `DRAGOMAN_<PATH>`, with `__` between levels:
   `{variable}=redis://10.0.0.7:6379`;
3. `--set KEY=VALUE`: `dragoman serve --set scheduler.queue.max_pending_jobs=500`.

In the file a value is TOML. In `--set` it is TOML or plain text. In the environment, text stands without quotes, a
switch is `true`/`false`, `yes`/`no`, `on`/`off` or `1`/`0`, and a list is TOML (`["a", "b"]`) or, for texts and
addresses, has commas (`a,b`).

An unknown key, a wrong type, a value out of range or values that do not fit together: nothing is started, all problems
are named at once, and the exit code is 2. The same goes for an unknown `DRAGOMAN_` variable, but for {others} and for
those that Kubernetes makes for a Service of that name (`DRAGOMAN_SERVICE_HOST`, `DRAGOMAN_PORT=tcp://…` and the like).

- `dragoman check-config FILE` does only that check.
- `dragoman print-config --config FILE` prints the merged result, passwords masked.
- `dragoman config-schema` prints the JSON Schema of the file, for editors.

Units are the last word of a name. Passwords in addresses are never printed.
"""


def configuration_reference() -> str:
    """The whole page, in Markdown."""
    variable = variable_name(("scheduler", "phase2", "redis", "url"))
    others = ", ".join(f"`{name}`" for name in sorted(OTHER_VARIABLES))
    parts = [_BEGINNING.format(variable=variable, others=others), *_unbuilt()]
    parts += (part for section in all_sections() if section.keys for part in _section(section))
    return "\n".join(parts)


def _unbuilt() -> Iterator[str]:
    everything = Settings.model_validate(
        {
            "auth": {"mode": "jwt"},
            "observability": {"otlp_endpoint": "http://127.0.0.1:4317"},
        }
    )
    yield "Read and checked already, but not built yet, so that `dragoman serve` refuses to start with them:\n"
    yield from (f"- {sentence}" for sentence in unbuilt_features(everything))
    yield ""


def _section(section: SectionKeys) -> Iterator[str]:
    name = ".".join(section.path)
    yield f"## `[[{name}]]`\n" if section.is_list else f"## `[{name}]`\n"
    yield f"{section.meaning}\n"
    yield "| key | default | meaning | allowed |"
    yield "|---|---|---|---|"
    yield from map(_row, section.keys)
    yield ""


def _row(key: Key) -> str:
    default = "required" if key.is_required else f"`{value_to_toml(key.default)}`"
    cells = (f"`{key.path[-1]}`", default, key.meaning, key.allowed)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
