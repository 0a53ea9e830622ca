"""Which keys are there, what may each be, and which known one did a wrong one mean?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum, auto
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from pydantic.fields import FieldInfo

from dragoman.config.redis_url import RedisUrl
from dragoman.config.section import Section, Wording
from dragoman.config.settings import Settings

KeyPath: TypeAlias = tuple[str, ...]
"""The names from the top of the file down: ("server", "port")."""

ENVIRONMENT_PREFIX: Final = "DRAGOMAN_"


class Kind(Enum):
    """What sort of value a key takes."""

    SWITCH = auto()
    WHOLE = auto()
    NUMBER = auto()
    TEXT = auto()
    CHOICE = auto()
    SECRET = auto()
    TEXTS = auto()
    SECRETS = auto()
    TABLES = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the file, as its model declares it."""

    path: KeyPath
    kind: Kind
    meaning: str
    allowed: str
    """What it may be, in words that follow "must be"."""
    is_required: bool
    default: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionKeys:
    """One section of the file and the keys directly in it."""

    path: KeyPath
    meaning: str
    is_list: bool
    """Whether there may be many of it: [[double brackets]]."""
    keys: tuple[Key, ...]


@cache
def all_sections() -> tuple[SectionKeys, ...]:
    """Every section, in the order of the models."""
    return tuple(_walk(Settings, (), is_list=False))


@cache
def known_keys() -> MappingProxyType[KeyPath, Key]:
    """Every key that has a place of its own: not those inside lists of tables."""
    return MappingProxyType(
        {key.path: key for section in all_sections() if not section.is_list for key in section.keys}
    )


@cache
def known_sections() -> tuple[KeyPath, ...]:
    """Every section that has a place of its own, the whole file being ()."""
    return tuple(section.path for section in all_sections() if not section.is_list)


@cache
def listed_keys() -> MappingProxyType[KeyPath, Key]:
    """Every key at all, those inside lists of tables without the index."""
    return MappingProxyType({key.path: key for section in all_sections() for key in section.keys})


def variable_name(path: KeyPath) -> str:
    """The environment variable of a key."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def name_key(path: tuple[str | int, ...]) -> str:
    """How a message names a key or a section: `[scheduler.phase3] pools[0].name`."""
    if path in known_sections():
        return f"[{'.'.join(map(str, path))}]"
    cut = next(size for size in range(len(path) - 1, -1, -1) if path[:size] in known_sections())
    name = ""
    for part in path[cut:]:
        name += f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}"
    name = name.removeprefix(".")
    return f"[{'.'.join(map(str, path[:cut]))}] {name}" if cut else f"[{name}]"


def nearest(path: KeyPath) -> KeyPath | None:
    """The known key or section that was probably meant: one misplaced, one misspelt here, one misspelt elsewhere."""
    known = _places()
    for place in known:
        if place[-1] == path[-1]:
            return place
    for match in get_close_matches(path[-1], names_in(path[:-1]), n=1, cutoff=0.7):
        return (*path[:-1], match)
    if path[:-1] not in known_sections():
        dotted = {".".join(place): place for place in known}
        for match in get_close_matches(".".join(path), dotted, n=1, cutoff=0.8):
            return dotted[match]
    names = {place[-1]: place for place in known}
    for match in get_close_matches(path[-1], names, n=1, cutoff=0.8):
        return names[match]
    return None


def names_in(section: KeyPath) -> tuple[str, ...]:
    """The keys and sections directly inside a section."""
    return tuple(place[-1] for place in _places() if place[:-1] == section)


def _places() -> tuple[KeyPath, ...]:
    return (*listed_keys(), *(path for path in known_sections() if path))


def _walk(model: type[Section], path: KeyPath, *, is_list: bool) -> Iterator[SectionKeys]:
    fields = model.model_fields
    keys = (_key((*path, name), field) for name, field in fields.items() if not _is_section(field))
    meaning = (model.__doc__ or "").partition("\n")[0]
    yield SectionKeys(path=path, meaning=meaning, is_list=is_list, keys=tuple(keys))
    for name, field in fields.items():
        if _is_section(field):
            yield from _walk(field.annotation, (*path, name), is_list=is_list)  # type: ignore[arg-type]
        elif _row(field) is not None:
            yield from _walk(_row(field), (*path, name), is_list=True)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _row(field: FieldInfo) -> Any:
    """The model of one entry, when the field is a list of tables."""
    entry = next(iter(get_args(field.annotation)), None)
    return entry if isinstance(entry, type) and issubclass(entry, Section) else None


def _key(path: KeyPath, field: FieldInfo) -> Key:
    kind = _kind(field)
    return Key(
        path=path,
        kind=kind,
        meaning=field.description or "",
        allowed=_allowed(kind, field),
        is_required=field.is_required(),
        default=field.get_default(),
    )


_KINDS: Final = MappingProxyType(
    {bool: Kind.SWITCH, int: Kind.WHOLE, float: Kind.NUMBER, str: Kind.TEXT, RedisUrl: Kind.SECRET}
)
_WORDS: Final = MappingProxyType(
    {
        Kind.SWITCH: "true or false",
        Kind.WHOLE: "a whole number",
        Kind.NUMBER: "a number",
        Kind.TEXT: "text",
        Kind.SECRET: "text, an address",
        Kind.TEXTS: "a list of texts",
        Kind.SECRETS: "a list of addresses",
        Kind.TABLES: "a list of tables",
    }
)


def _kind(field: FieldInfo) -> Kind:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return Kind.CHOICE
    if get_origin(annotation) is not tuple:
        return _KINDS[annotation]  # type: ignore[index]
    if _row(field) is not None:
        return Kind.TABLES
    return Kind.SECRETS if get_args(annotation)[0] is RedisUrl else Kind.TEXTS


def _allowed(kind: Kind, field: FieldInfo) -> str:
    if kind is Kind.CHOICE:
        choices = [f'"{choice}"' for choice in get_args(field.annotation)]
        return " or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}"
    for entry in field.metadata:
        if isinstance(entry, Wording):
            return entry.text
    bounds = [getattr(entry, name) for name in ("ge", "le") for entry in field.metadata if hasattr(entry, name)]
    return f"{_WORDS[kind]} from {bounds[0]} to {bounds[1]}" if len(bounds) == 2 else _WORDS[kind]


def _quoted(name: str) -> str:
    return name if name.isidentifier() else repr(name)
