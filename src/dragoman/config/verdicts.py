"""What is wrong with entries whose values the models refuse, in words?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dragoman.config.keys import Key, KeyPath, Kind, known_keys, listed_keys, name_key
from dragoman.config.problems import Problem
from dragoman.config.redis_url import mask_password
from dragoman.config.section import CONFLICT, Conflict
from dragoman.config.sources import Entry, unknown
from dragoman.config.toml_text import value_to_toml

_SHOWN_MAX = 80
_BITS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A problem and the keys that it depends on."""

    problem: Problem
    keys: frozenset[KeyPath]
    is_conflict: bool


def verdicts(error: ValidationError, entries: Mapping[KeyPath, Entry]) -> Iterator[Verdict]:
    """What the models said, in the order of the models."""
    for details in error.errors(include_url=False):
        if details["type"] == CONFLICT:
            for conflict in details["ctx"]["conflicts"]:
                yield _conflict_verdict(details["loc"], conflict, entries)
        else:
            yield _value_verdict(details, entries)


def _conflict_verdict(section: tuple[str | int, ...], conflict: Conflict, entries: Mapping[KeyPath, Entry]) -> Verdict:
    above = tuple(map(str, section))
    keys = [(*above, *name.split(".")) for name in conflict.keys]
    # Defaults go together, so at least one of the keys was said by somebody.
    origin = next(entries[key].origin for key in keys if key in entries)
    blamed = keys[0]
    found = _show(known_keys()[blamed], entries[blamed].value) if blamed in entries else "(left out)"
    text = f"{name_key(blamed)} = {found}: {conflict.text}"
    return Verdict(problem=Problem(origin, text), keys=frozenset(keys), is_conflict=True)


def _value_verdict(details: ErrorDetails, entries: Mapping[KeyPath, Entry]) -> Verdict:
    place = details["loc"]
    cut = next(size for size in range(len(place) + 1) if place[:size] in known_keys())
    path: KeyPath = tuple(map(str, place[:cut]))
    text = f"{name_key(place)}{_what(details)}"
    return Verdict(problem=Problem(entries[path].origin, text), keys=frozenset({path}), is_conflict=False)


def _what(details: ErrorDetails) -> str:
    place = details["loc"]
    listed: KeyPath = tuple(part for part in place if isinstance(part, str))
    if details["type"] == "extra_forbidden":
        return f": {unknown(listed)}"
    key = listed_keys()[listed]
    if details["type"] == "missing":
        return f" is missing; must be {key.allowed}"
    default = "" if place != key.path or key.is_required else f"; leave it out for {value_to_toml(key.default)}"
    return f" = {_show(key, details['input'])}: {_wanted(details, key)}{default}"


def _wanted(details: ErrorDetails, key: Key) -> str:
    context = details.get("ctx", {})
    if details["type"] == "greater_than_equal":
        return f"must be {context['ge']} or more"
    if details["type"] == "less_than_equal":
        return f"must be {context['le']} or less"
    if details["type"] == "value_error":
        return str(context["error"])
    if isinstance(details["loc"][-1], int):
        return "must be a table" if key.kind is Kind.TABLES else "must be text, not empty"
    return f"must be {key.allowed}"


def _show(key: Key, value: object) -> str:
    """What was found: short, and never a password."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:
        # Python refuses to write thousands of digits.
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str) and (key.kind in {Kind.SECRET, Kind.SECRETS} or "://" in value):
        value = mask_password(value)
    text = value_to_toml(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
