"""What do a file, the environment and `--set` say? Each becomes entries, key by key, and problems."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeAlias

from dragoman.config.keys import (
    ENVIRONMENT_PREFIX,
    Key,
    KeyPath,
    Kind,
    known_keys,
    known_sections,
    name_key,
    names_in,
    nearest,
    variable_name,
)
from dragoman.config.problems import Problem
from dragoman.config.redis_url import mask_password


@dataclass(frozen=True, slots=True)
class Entry:
    """A value said for a known key; whether it is good is not known yet."""

    path: KeyPath
    value: Any
    origin: str


Said: TypeAlias = Iterator[Entry | Problem]

OTHER_VARIABLES: Final = frozenset({"DRAGOMAN_TOKEN"})
"""Variables that commands read and that are no settings."""

# Kubernetes gives every container such variables for a Service that is called dragoman or dragoman-something.
_KUBERNETES_SERVICE: Final = re.compile(r"DRAGOMAN_([A-Z0-9_]+_)?SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)")
_KUBERNETES_PORT: Final = re.compile(r"DRAGOMAN_([A-Z0-9_]+_)?PORT_[0-9]+_[A-Z]+(_(PROTO|PORT|ADDR))?")
_KUBERNETES_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")
_SWITCH_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_table(path: Path) -> dict[str, Any] | Problem:
    """The whole table of a TOML file, or why there is none."""
    origin = str(path)
    try:
        # Some editors begin a file with a byte order mark, which TOML does not know.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return Problem(origin, "there is no such file")
    except OSError as error:
        return Problem(origin, f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        return Problem(origin, f"is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}")
    except RecursionError:
        return Problem(origin, "is no configuration: nested too deeply")
    except ValueError as error:
        # Of a path with a NUL in it, of TOML, or of a number with thousands of digits.
        return Problem(origin, f"is not TOML: {error}")


def entries_of_table(table: Mapping[str, Any], origin: str, path: KeyPath = ()) -> Said:
    """Everything in a table, which is the section of that path."""
    for name, value in table.items():
        yield from _entries_at((*path, name), value, origin)


def read_environment(environment: Mapping[str, str]) -> Said:
    """Every DRAGOMAN_ variable."""
    for name in sorted(environment):
        text = environment[name]
        if not name.startswith(ENVIRONMENT_PREFIX) or _is_of_others(name, text):
            continue
        origin = f"environment variable {name}"
        path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        key = known_keys().get(path)
        if key is None or variable_name(path) != name:
            yield Problem(origin, _unknown_variable(name, path))
        elif not _is_text(text):
            yield Problem(origin, f"{name_key(path)}: its value is not UTF-8")
        else:
            yield Entry(path, _from_variable(key, text), origin)


def read_overrides(overrides: Sequence[str]) -> Said:
    """Every `--set key=value`, the last one of a key winning."""
    for override in overrides:
        name, equals, text = override.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not equals or not all(path):
            yield Problem(
                f"--set {mask_password(override)}",
                "must be KEY=VALUE, as in --set scheduler.queue.max_pending_jobs=500",
            )
            continue
        origin = f"--set {name.strip()}"
        if not _is_text(text):
            yield Problem(origin, "its value is not UTF-8")
            continue
        key = known_keys().get(path)
        value = _from_toml(text) if key is None else _from_option(key, text.strip())
        yield from _entries_at(path, value, origin)


def _entries_at(path: KeyPath, value: Any, origin: str) -> Said:
    if path in known_keys():
        yield Entry(path, value, origin)
    elif path not in known_sections():
        yield Problem(origin, f"{name_key(path)}: {unknown(path)}")
    elif isinstance(value, dict):
        yield from entries_of_table(value, origin, path)
    else:
        yield Problem(origin, f"{name_key(path)} is a section, not a value; it has {', '.join(names_in(path))}")


def unknown(path: KeyPath) -> str:
    """What to say of a key that is not known."""
    meant = nearest(path)
    if meant is not None:
        return f"unknown; did you mean {name_key(meant)}?"
    parent = next(path[:size] for size in range(len(path) - 1, -1, -1) if names_in(path[:size]))
    return f"unknown; known here: {', '.join(names_in(parent))}"


def _unknown_variable(name: str, path: KeyPath) -> str:
    if path in known_sections():
        return f"names a section; wanted one of its keys: {', '.join(names_in(path))}"
    variables = [variable_name(known) for known in known_keys()]
    for match in get_close_matches(name.upper(), variables, n=1, cutoff=0.8):
        return f"unknown; did you mean {match}?"
    meant = nearest(path)
    if meant in known_keys() and meant is not None:
        return f"unknown; did you mean {variable_name(meant)}?"
    return f"unknown; wanted a key with __ between levels, as in {variables[0]}"


def _is_text(text: str) -> bool:
    """Whether it was UTF-8: Python keeps other bytes of the environment and the command line as lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _is_of_others(name: str, text: str) -> bool:
    if name in OTHER_VARIABLES:
        return True
    if "__" in name:
        return False
    if _KUBERNETES_SERVICE.fullmatch(name) or _KUBERNETES_PORT.fullmatch(name):
        return True
    # Without a look at the value, DRAGOMAN_SERVER_PORT=80 would pass for one of them.
    return name.endswith("_PORT") and _KUBERNETES_ADDRESS.fullmatch(text) is not None


def _from_variable(key: Key, text: str) -> Any:
    """The value of an environment variable: text as it is, anything else read by what the key takes."""
    if key.kind in {Kind.TEXT, Kind.CHOICE, Kind.SECRET}:
        return text
    if key.kind in {Kind.TEXTS, Kind.SECRETS} and not text.strip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    return _from_option(key, text.strip())


def _from_option(key: Key, text: str) -> Any:
    """The value of an option: TOML, or else plain text."""
    if key.kind is Kind.SWITCH:
        return _SWITCH_WORDS.get(text.lower(), text)
    value = _from_toml(text)
    if key.kind in {Kind.TEXT, Kind.CHOICE, Kind.SECRET} and not isinstance(value, str):
        # --set scheduler.phase2.instance_id=7 means the text.
        return text
    return value


def _from_toml(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # With a line break in it, it could be more than one value.
    return table["value"] if len(table) == 1 else text
