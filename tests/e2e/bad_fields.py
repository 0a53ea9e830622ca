"""How can a message be wrong? Every field of a struct, in every way that its type forbids, new fields too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

ABSENT: Any = object()
"""The field is left out."""

HOSTILE_TEXTS = (
    "\x00",
    "line\nlevel=error event=forged",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnirts",
    "'; DROP TABLE jobs; --",
    "../../etc/passwd",
    "{{7*7}}${7*7}%s%n",
    "\U0001f9e8" * 8,
    " ",
)
"""Texts that are texts: whether they are taken or refused, nothing may come of them."""


@dataclass(frozen=True, slots=True)
class BadField:
    """One thing wrong with one message: where, how, and what stands there instead."""

    path: tuple[str, ...]
    how: str
    value: Any

    @property
    def name(self) -> str:
        """The field, as the error must name it."""
        return self.path[-1]

    def __str__(self) -> str:
        return f"{'.'.join(self.path)}: {self.how}"


def tag_of(kind: type[msgspec.Struct]) -> str:
    """What `type` says for it."""
    tag = kind.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def smallest(kind: type[msgspec.Struct], **known: Any) -> dict[str, Any]:
    """The smallest valid message of a type, as an object; `known` are values for fields, where it has them."""
    fields = _fields(kind)
    message: dict[str, Any] = {field.encode_name: _valid(field.type) for field in fields if field.required}
    return {"type": tag_of(kind)} | message | {name: value for name, value in known.items() if name in message}


def bad_fields(kind: type[msgspec.Struct], *, is_binary: bool) -> Iterator[BadField]:
    """Everything that can be wrong with the fields of a message."""
    yield BadField(("type",), "a number", 7)
    yield BadField(("type",), "null", None)
    for field in _fields(kind):
        yield from _bad(field, (), is_binary=is_binary)


def spoiled(message: dict[str, Any], bad: BadField, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The message with that one thing wrong."""
    return _put(message, bad.path, bad.value, kind)


def text_fields(kind: type[msgspec.Struct]) -> list[str]:
    """The fields that hold text which may be anything."""
    return [field.encode_name for field in _fields(kind) if _holds_text(field.type)]


def nested(depth: int) -> dict[str, Any]:
    """An object in an object in an object."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _bad(field: inspect.Field, above: tuple[str, ...], *, is_binary: bool) -> Iterator[BadField]:
    path = (*above, field.encode_name)
    options, nullable = _options(field.type)
    if field.required:
        yield BadField(path, "missing", ABSENT)
        if not nullable:
            yield BadField(path, "null", None)
    for how, value in _ill_typed(options, is_binary=is_binary):
        yield BadField(path, how, value)
    for option in options:
        inner = option.item_type if isinstance(option, inspect.ListType) else option
        if isinstance(inner, inspect.StructType):
            for below in inner.fields:
                yield from _bad(below, path, is_binary=is_binary)


def _options(info: inspect.Type) -> tuple[list[inspect.Type], bool]:
    types = list(info.types) if isinstance(info, inspect.UnionType) else [info]
    return [option for option in types if not isinstance(option, inspect.NoneType)], len(types) > 1


def _ill_typed(options: list[inspect.Type], *, is_binary: bool) -> Iterator[tuple[str, Any]]:
    assert len(options) == 1, "say here how a union of more can be wrong"
    (option,) = options
    for how, value, allowed in (
        ("a truth value", True, inspect.BoolType),
        ("a text", "seven", (inspect.StrType, inspect.BytesType, inspect.LiteralType)),
        ("a fraction", 7.5, inspect.FloatType),
        ("a number", 7, (inspect.IntType, inspect.FloatType)),
        ("a list", [7], inspect.ListType),
        ("an object", {"a": 7}, (inspect.DictType, inspect.StructType)),
    ):
        if not isinstance(option, inspect.AnyType) and not isinstance(option, allowed):
            yield how, value
    yield from _out_of_bounds(option, is_binary=is_binary)


def _out_of_bounds(option: inspect.Type, *, is_binary: bool) -> Iterator[tuple[str, Any]]:
    match option:
        case inspect.StrType(min_length=shortest, max_length=longest):
            if shortest:
                yield "empty", ""
            if longest is not None:
                yield "too long", "x" * (longest + 1)
                yield "huge", "x" * 1_000_000
        case inspect.IntType(ge=least, le=most):
            yield from ((f"{value}", value) for value in _integers_beyond(least, most, is_binary=is_binary))
        case inspect.FloatType(ge=least):
            if least is not None:
                yield "too small", least - 1
                if is_binary:
                    yield "no number", float("nan")
        case inspect.BytesType():
            if is_binary:
                yield "a text", "seven"
            else:
                yield "no base64", "!!!!"
                yield "base64 cut short", "QUJDR"
        case inspect.LiteralType():
            yield "none of the words", "hostile"
            yield "huge", "x" * 1_000_000
        case inspect.ListType(item_type=item, max_length=longest):
            if not isinstance(item, inspect.AnyType):
                yield "a list of null", [None]
            if longest is not None:
                yield "too long", [_valid(item)] * (longest + 1)
        case inspect.DictType():
            if is_binary:
                yield "an object with numbers for keys", {7: 7}
        case _:
            pass


def _integers_beyond(least: float | None, most: float | None, *, is_binary: bool) -> Iterator[int]:
    if least is not None and least > -(2**63):
        yield int(least) - 1
        yield -(2**63)
    if most is not None and most < 2**63 - 1:
        yield int(most) + 1
    yield 2**64 - 1
    if not is_binary:
        yield 2**64
        yield 10**400
        yield -(10**400)


def _put(message: dict[str, Any], path: tuple[str, ...], value: Any, kind: type[msgspec.Struct]) -> dict[str, Any]:
    name, *rest = path
    if value is ABSENT and not rest:
        return {key: old for key, old in message.items() if key != name}
    if not rest:
        return message | {name: value}
    (field,) = (field for field in _fields(kind) if field.encode_name == name)
    (option,), _ = _options(field.type)
    inner = option.item_type if isinstance(option, inspect.ListType) else option
    assert isinstance(inner, inspect.StructType)
    part = _put(_valid(inner), tuple(rest), value, inner.cls)
    return message | {name: [part] if isinstance(option, inspect.ListType) else part}


def _valid(info: inspect.Type) -> Any:
    (option, *_), _ = _options(info)
    match option:
        case inspect.StructType(fields=fields):
            return {field.encode_name: _valid(field.type) for field in fields if field.required}
        case inspect.StrType():
            return "en"
        case inspect.BytesType():
            return b"abcd"
        case inspect.BoolType():
            return True
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.ListType():
            return []
        case inspect.DictType():
            return {}
        case inspect.LiteralType(values=values):
            return values[0]
        case _:
            raise TypeError(f"no valid value for {option}")


def _holds_text(info: inspect.Type) -> bool:
    return any(isinstance(option, inspect.StrType) for option in _options(info)[0])
