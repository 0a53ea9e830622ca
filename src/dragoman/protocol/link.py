"""What may a peer say, and when? From frames to messages, or to the error that is owed for a bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from dragoman.protocol.codec import DECODE_ERRORS, Codec, UnknownTypeError
from dragoman.protocol.fields import Error, ErrorCode

M = TypeVar("M")

STRIKES_MAX: Final = 20
"""Bad messages in a row after which a peer is sent away."""

_UNKNOWN_TYPES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad message: the error that answers it (None: it was answered before), and whether the peer must go."""

    error: Error | None
    is_last: bool = False


class Link(Generic[M]):
    """The protocol state of one connection."""

    __slots__ = ("_codec", "_decode", "_opener", "_strikes", "_unknown", "_was_clean", "is_open")

    def __init__(self, codec: Codec[M], opener: type[M]) -> None:
        self._codec = codec
        self._decode = codec.decoder.decode
        self._opener = opener
        self._strikes = 0
        self._was_clean = True
        """Whether the last frame was a message of ours, and no strike followed from it."""
        self._unknown: set[str] = set()
        self.is_open = False
        """Whether the opening message was accepted; set by the connection."""

    def receive(self, frame: bytes, *, is_text: bool) -> M | Fault:
        """The message in a frame, or the fault in it."""
        if self._was_clean:
            self._strikes = 0
        self._was_clean = True
        if is_text is self._codec.is_binary:
            wanted = "binary frames of MessagePack" if self._codec.is_binary else "text frames of JSON"
            return self.fault(f"wrong kind of frame; wanted {wanted}")
        try:
            message = self._decode(frame)
        except DECODE_ERRORS as error:
            return self._undecodable(frame, error)
        if not self.is_open and not isinstance(message, self._opener):
            return self._too_early()
        return message

    def fault(self, text: str, **details: Any) -> Fault:
        """A strike against the peer for a message that says something impossible."""
        self._strikes += 1
        self._was_clean = False
        is_last = self._strikes >= STRIKES_MAX or not self.is_open
        return Fault(
            Error(code=ErrorCode.INVALID_MESSAGE, message=text, details=details | {"retryable": False}), is_last
        )

    def _undecodable(self, frame: bytes, error: Exception) -> Fault:
        match self._codec.explain(frame, error):
            case UnknownTypeError(kind=kind):
                return self._unknown_type(kind)
            case wrong:
                return self.fault(str(wrong), **_pointers(self._codec.salvage(frame)))

    def _unknown_type(self, kind: str) -> Fault:
        if not self.is_open:
            return self._too_early()
        kind = kind[:64]
        self._was_clean = False
        if kind in self._unknown or len(self._unknown) >= _UNKNOWN_TYPES_MAX:
            return Fault(None)
        self._unknown.add(kind)
        text = f"type: {kind!r} is not known here; it is ignored from now on"
        return Fault(Error(code=ErrorCode.UNSUPPORTED_FEATURE, message=text, details={"retryable": False}))

    def _too_early(self) -> Fault:
        wanted = self._opener.__struct_config__.tag  # type: ignore[attr-defined]  # every opener is a tagged struct
        text = f"type: wanted {wanted!r} before anything else"
        return Fault(
            Error(code=ErrorCode.INVALID_MESSAGE, message=text, details={"retryable": False}),
            is_last=True,
        )


def _pointers(loose: dict[str, Any]) -> dict[str, Any]:
    """Which utterance or job a bad message is about, as far as can be told."""
    found: dict[str, Any] = {}
    index = loose.get("utterance_index")
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index <= 2**53:
        found["utterance_index"] = index
    job_id = loose.get("job_id")
    if isinstance(job_id, str) and len(job_id) <= 256:
        found["job_id"] = job_id
    return found
