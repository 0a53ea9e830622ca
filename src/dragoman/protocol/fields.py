"""What types of field do the messages share, and what are their bounds?

The bounds keep a hostile peer from making long keys and log lines; the frame size limit bounds everything else.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta, Struct

Identifier: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
ShortText: TypeAlias = Annotated[str, Meta(max_length=1024)]
LanguageTag: TypeAlias = Annotated[str, Meta(min_length=1, max_length=35)]
UInt: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
"""At most 2**53, so that a peer whose only number is a double reads it exactly."""
Int: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What both formats can carry: JSON would read longer ones, which MessagePack cannot write."""
Percent: TypeAlias = Annotated[float, Meta(ge=0)]
FreeForm: TypeAlias = dict[str, Any]
"""An object that is passed on as it came."""

_DEPTH_MAX: Final = 64
_VALUES_MAX: Final = 50_000


def check_free(field: str, value: object) -> None:
    """Refuse what could be read in one format and not be written in the other: the peer it goes to may use that one.

    Raises ValueError, which names the field.
    """
    if value is None:
        return
    level, count = [value], 0
    for _ in range(_DEPTH_MAX):
        inner: list[object] = []
        for item in level:
            inner.extend(_inside(field, item))
        if not inner:
            return
        count += len(inner)
        if count > _VALUES_MAX:
            raise ValueError(f"{field}: too long; wanted at most {_VALUES_MAX} values")
        level = inner
    raise ValueError(f"{field}: nested too deep; wanted at most {_DEPTH_MAX} levels")


def _inside(field: str, value: object) -> Collection[object]:
    match value:
        case None | bool() | float() | str() | bytes():
            return ()
        case int():
            if not -(2**63) <= value < 2**64:
                raise ValueError(f"{field}: an integer out of range; wanted one of 64 bits")
            return ()
        case list():
            return value
        case dict():
            wrong = {type(key).__name__ for key in value} - {"str"}
            if wrong:
                raise ValueError(f"{field}: a key of type {min(wrong)}; wanted str")
            return value.values()
        case _:
            raise ValueError(f"{field}: a value of type {type(value).__name__}; wanted one that JSON has")


class Pipeline(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False):
    """Which services an utterance goes through; what is left out has the default of its audio format."""

    use_asr: bool | None = None
    use_nmt: bool | None = None
    use_tts: bool | None = None
    use_semantic: bool | None = None
    use_tone: bool | None = None


class ErrorCode(StrEnum):
    """Every code of an `error` message or of a failed `job_result`."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_SESSION = "INVALID_SESSION"
    SESSION_CLOSED = "SESSION_CLOSED"
    NODE_UNAVAILABLE = "NODE_UNAVAILABLE"
    NODE_OVERLOADED = "NODE_OVERLOADED"
    MODEL_NOT_AVAILABLE = "MODEL_NOT_AVAILABLE"
    MODEL_LOAD_FAILED = "MODEL_LOAD_FAILED"
    UNSUPPORTED_FEATURE = "UNSUPPORTED_FEATURE"
    INVALID_PAIRING_CODE = "INVALID_PAIRING_CODE"
    NO_AVAILABLE_NODE = "NO_AVAILABLE_NODE"
    WS_DISCONNECTED = "WS_DISCONNECTED"
    NMT_TIMEOUT = "NMT_TIMEOUT"
    TTS_TIMEOUT = "TTS_TIMEOUT"
    JOB_TIMEOUT = "JOB_TIMEOUT"
    MODEL_VERIFY_FAILED = "MODEL_VERIFY_FAILED"
    MODEL_CORRUPTED = "MODEL_CORRUPTED"
    NO_GPU_AVAILABLE = "NO_GPU_AVAILABLE"
    NODE_ID_CONFLICT = "NODE_ID_CONFLICT"
    INVALID_CAPABILITY_SCHEMA = "INVALID_CAPABILITY_SCHEMA"
    SCHEDULER_DEPENDENCY_DOWN = "SCHEDULER_DEPENDENCY_DOWN"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    QUEUE_FULL = "QUEUE_FULL"
    JOB_CANCELLED = "JOB_CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    SCHEDULER_DRAINING = "SCHEDULER_DRAINING"


class Error(Struct, tag_field="type", tag="error", kw_only=True, omit_defaults=True, frozen=True):
    """What went wrong. `code` is text, not ErrorCode: a newer peer may know more codes than we do."""

    code: str
    message: str
    details: FreeForm | None = None
