"""How do messages become frames, and frames messages?

Two formats carry the same objects: JSON in text frames (the default) and, with the subprotocol MSGPACK_SUBPROTOCOL,
MessagePack in binary frames. In JSON a field of bytes is base64 text, in MessagePack it is raw.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import inspect

from dragoman.protocol.node_messages import NodeInbound, NodeOutbound
from dragoman.protocol.session_messages import SessionInbound, SessionOutbound

MSGPACK_SUBPROTOCOL: Final = "dragoman.msgpack.v1"

M_co = TypeVar("M_co", covariant=True)
M = TypeVar("M")

_ERROR_LENGTH_MAX: Final = 500

DECODE_ERRORS: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What a decoder raises for a frame that is none of its messages."""


class FormatError(ValueError):
    """A frame that is no message of ours: `str()` says which field is wrong and what was wanted."""


class UnknownTypeError(ValueError):
    """A well-formed message of a type that we do not know."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(f"unknown message type {kind[:64]!r}")


class _Decoder(Protocol[M_co]):
    def decode(self, frame: bytes, /) -> M_co: ...


class _Encoder(Protocol):
    def encode(self, message: Any, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec(Generic[M]):
    """Reads messages of type M and writes messages of any type, in one format."""

    is_binary: bool
    decoder: _Decoder[M]
    encoder: _Encoder
    loose: _Decoder[Any]
    words: dict[str, str]
    """Which words each field takes that takes only some."""

    def decode(self, frame: bytes) -> M:
        """The message in a frame.

        Raises FormatError (naming the field and what was wanted) or UnknownTypeError.
        """
        try:
            return self.decoder.decode(frame)
        except DECODE_ERRORS as error:
            raise self.explain(frame, error) from error

    def encode(self, message: msgspec.Struct) -> bytes:
        """The frame of a message."""
        return self.encoder.encode(message)

    def salvage(self, frame: bytes) -> dict[str, Any]:
        """Whatever object a bad frame holds, or an empty one: to tell the sender which utterance was meant."""
        try:
            loose = self.loose.decode(frame)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError):
            return {}
        return loose if isinstance(loose, dict) else {}

    def explain(self, frame: bytes, error: Exception) -> FormatError | UnknownTypeError:
        """What is wrong with a frame that could not be decoded."""
        if isinstance(error, RecursionError):
            return FormatError("nested too deep; wanted a flat object")
        if not isinstance(error, msgspec.ValidationError):
            name = "MessagePack" if self.is_binary else "JSON"
            return FormatError(f"not {name}: {str(error)[:200]}")
        text = str(error)
        kind = self.salvage(frame).get("type")
        if isinstance(kind, str) and text.endswith("`$.type`"):
            return UnknownTypeError(kind)
        # The field stands at the end, behind whatever was found in it.
        text = text if len(text) <= _ERROR_LENGTH_MAX else f"{text[:200]} ... {text[-200:]}"
        if text.startswith("Invalid enum value"):
            text += f"; wanted {self.words.get(text.rpartition('.')[2].rstrip('`'), 'another')}"
        return FormatError(text.replace("`$.", "`"))


@functools.cache
def _codec(inbound: Any, *, is_binary: bool) -> Codec[Any]:
    wire: Any = msgspec.msgpack if is_binary else msgspec.json
    return Codec(
        is_binary=is_binary,
        decoder=wire.Decoder(inbound),
        encoder=wire.Encoder(),
        loose=wire.Decoder(),
        words=dict(_words(inspect.type_info(inbound))),
    )


def _words(info: inspect.Type, field: str = "") -> Iterator[tuple[str, str]]:
    match info:
        case inspect.LiteralType(values=values):
            yield field, " or ".join(repr(value) for value in values)
        case inspect.UnionType(types=types):
            for option in types:
                yield from _words(option, field)
        case inspect.ListType(item_type=item):
            yield from _words(item, field)
        case inspect.StructType(fields=fields):
            for inner in fields:
                yield from _words(inner.type, inner.encode_name)
        case _:
            pass


def session_server_codec(*, is_binary: bool) -> Codec[SessionInbound]:
    """The scheduler's side of a session's connection."""
    return _codec(SessionInbound, is_binary=is_binary)


def session_client_codec(*, is_binary: bool) -> Codec[SessionOutbound]:
    """The client's side of a session's connection."""
    return _codec(SessionOutbound, is_binary=is_binary)


def node_server_codec(*, is_binary: bool) -> Codec[NodeInbound]:
    """The scheduler's side of a node's connection."""
    return _codec(NodeInbound, is_binary=is_binary)


def node_client_codec(*, is_binary: bool) -> Codec[NodeOutbound]:
    """The node's side of its connection."""
    return _codec(NodeOutbound, is_binary=is_binary)
