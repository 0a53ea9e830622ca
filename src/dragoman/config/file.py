"""How do a file, the environment and the command line become Settings, or a full list of what is wrong?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from dragoman.config.keys import KeyPath
from dragoman.config.problems import ConfigError, Problem
from dragoman.config.settings import Settings
from dragoman.config.sources import Entry, entries_of_table, read_environment, read_overrides, read_table
from dragoman.config.verdicts import Verdict, verdicts

Entries: TypeAlias = dict[KeyPath, Entry]


def load_settings(path: Path | None, environment: Mapping[str, str], overrides: Sequence[str]) -> Settings:
    """The merged settings: the file, then `DRAGOMAN_` variables, then `--set`; the later wins.

    Raises ConfigError, which names every problem.
    """
    table = {} if path is None else read_table(path)
    of_file = (table,) if isinstance(table, Problem) else entries_of_table(table, str(path))
    said = (*of_file, *read_environment(environment), *read_overrides(overrides))
    problems = [entry for entry in said if isinstance(entry, Problem)]
    entries = {entry.path: entry for entry in said if isinstance(entry, Entry)}
    settings, found = _settle(entries)
    # What belongs together is not known while the file is not.
    problems += (verdict.problem for verdict in found if not (verdict.is_conflict and isinstance(table, Problem)))
    if settings is None or problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return settings


def _settle(entries: Entries) -> tuple[Settings | None, Iterable[Verdict]]:
    """Settings of these entries, or else everything that is wrong with them."""
    try:
        return Settings.model_validate(_nest(entries.values())), ()
    except ValidationError as error:
        found = tuple(verdicts(error, entries))
    wrong = frozenset[KeyPath]().union(*(verdict.keys for verdict in found if not verdict.is_conflict))
    if not wrong:
        return None, found
    # A section with a wrong value is not asked whether its values fit together: ask again without that value.
    _, others = _settle({path: entry for path, entry in entries.items() if path not in wrong})
    alone = (verdict for verdict in found if not verdict.is_conflict)
    return None, (*alone, *(verdict for verdict in others if not verdict.keys & wrong))


def _nest(entries: Iterable[Entry]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for entry in entries:
        place = values
        for name in entry.path[:-1]:
            place = place.setdefault(name, {})
        place[entry.path[-1]] = entry.value
    return values
