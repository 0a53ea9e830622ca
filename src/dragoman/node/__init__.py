"""The SDK of programs that translate: a node of one's own is a few functions and a Node that runs them."""

from dragoman.core.capability import Service
from dragoman.node.audio import Audio, Spoken
from dragoman.node.calls import TimeLimits
from dragoman.node.errors import (
    BadInputError,
    ModelNotAvailableError,
    NodeRefusedError,
    ServiceError,
    UnsupportedError,
)
from dragoman.node.node import Node
from dragoman.node.services import Recognised, Services, any_to_any, any_to_english, english_to_any
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.node_messages import Gpu

__all__ = [
    "Audio",
    "BadInputError",
    "ErrorCode",
    "Gpu",
    "ModelNotAvailableError",
    "Node",
    "NodeRefusedError",
    "Recognised",
    "Service",
    "ServiceError",
    "Services",
    "Spoken",
    "TimeLimits",
    "UnsupportedError",
    "any_to_any",
    "any_to_english",
    "english_to_any",
]
