"""How are settings written as TOML? The standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dragoman.config.redis_url import RedisUrl
from dragoman.config.section import Section
from dragoman.config.settings import Settings


def settings_to_toml(settings: Settings) -> str:
    """All settings, ready to be loaded again; passwords are masked."""
    return "\n".join(_tables(settings, ())).strip() + "\n"


def value_to_toml(value: object) -> str:
    """One value in one line. Lists and tables may be nested; passwords are masked."""
    match value:
        case bool():
            return "true" if value else "false"
        case RedisUrl() | str():
            # JSON strings are TOML strings, but for DEL, which TOML wants escaped.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(value_to_toml, value))}]"
        case Section():
            pairs = (f"{name} = {value_to_toml(entry)}" for name, entry in value)
            return f"{{ {', '.join(pairs)} }}"
        case _:
            return str(value)


def _tables(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    values = [(name, value) for name, value in section if not isinstance(value, Section)]
    if values:
        yield f"\n[{'.'.join(path)}]"
    yield from (f"{name} = {value_to_toml(value)}" for name, value in values)
    for name, value in section:
        if isinstance(value, Section):
            yield from _tables(value, (*path, name))
