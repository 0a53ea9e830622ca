"""What is every section of the settings made of?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from dragoman.core.language import AUTO, parse_language

CONFLICT: Final = "conflict"
"""The type of the error that a section raises when its values do not fit together."""


@dataclass(frozen=True, slots=True)
class Wording:
    """What a text must be, in words, where its bounds do not say it."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Values that are good alone and not together."""

    keys: tuple[str, ...]
    """Inside the section, with dots; the first one is the one to blame."""
    text: str


class Section(BaseModel):
    """Read-only, no unknown keys, no silent change of type."""

    # A ValidationError shows its input, and that may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    def conflicts(self) -> Iterator[Conflict]:
        """What does not fit together."""
        return iter(())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        conflicts = tuple(self.conflicts())
        if conflicts:
            text = "; ".join(f"{conflict.keys[0]}: {conflict.text}" for conflict in conflicts)
            raise PydanticCustomError(CONFLICT, "{text}", {"text": text, "conflicts": conflicts})
        return self


def _language(tag: str) -> str:
    parse_language(tag)
    return tag


def _target(tag: str) -> str:
    if parse_language(tag) == AUTO:
        raise ValueError("'auto' is for a source language; a target is one language, like 'en'")
    return tag


# The upper bounds only keep arithmetic sane: a day of milliseconds, thirty days of seconds, a billion of anything.
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000_000)]
Bytes: TypeAlias = Annotated[int, Field(ge=1, le=2**40)]
Seconds: TypeAlias = Annotated[int, Field(ge=1, le=2_592_000)]
SecondsOrZero: TypeAlias = Annotated[int, Field(ge=0, le=2_592_000)]
Milliseconds: TypeAlias = Annotated[int, Field(ge=1, le=86_400_000)]
MillisecondsOrZero: TypeAlias = Annotated[int, Field(ge=0, le=86_400_000)]
Percent: TypeAlias = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000), Wording("text, not empty")]
# Parts of Redis keys: a brace would move a key to another slot of a Redis Cluster, a space breaks tools.
KeyPart: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._:-]{1,200}$"), Wording("1 to 200 letters, digits, `.`, `_`, `:` or `-`")
]
# A label of metrics, a part of Redis keys, and of names that people type: in any script, without what is used to quote,
# to separate, or to name pools that nobody defined.
PoolName: TypeAlias = Annotated[
    str,
    Field(pattern=r"^[^\s{}()*\x00-\x1f\x7f\"'\\,;/]{1,200}$"),
    Wording("1 to 200 characters, no spaces, brackets, quotes, stars, commas, semicolons or slashes"),
]
SourceLanguage: TypeAlias = Annotated[
    str, AfterValidator(_language), Wording("a language tag like `en`, `pt-BR` or `auto`")
]
TargetLanguage: TypeAlias = Annotated[str, AfterValidator(_target), Wording("a language tag like `en` or `pt-BR`")]
