"""How does a service say why it could not do a job? By raising one of these; the scheduler gets the code."""

from __future__ import annotations

from typing import Any

from dragoman.protocol.fields import ErrorCode


class ServiceError(Exception):
    """A job that cannot be done. The client may read `message`: nothing secret, and nothing that a speaker said."""

    def __init__(self, code: ErrorCode, message: str, details: dict[str, Any] | None = None) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{code}: {message}")


class ModelNotAvailableError(ServiceError):
    """The service has no model for this; the scheduler then tries another node."""

    def __init__(self, service_id: str, message: str = "") -> None:
        super().__init__(
            ErrorCode.MODEL_NOT_AVAILABLE, message or f"no model for {service_id}", {"service_id": service_id}
        )


class UnsupportedError(ServiceError):
    """The node cannot do this at all, such as an audio format that it does not read."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNSUPPORTED_FEATURE, message)


class BadInputError(ServiceError):
    """What the client sent is not what it said it was."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_MESSAGE, message)


class NodeRefusedError(Exception):
    """The scheduler will not have this node, and trying again would not help."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"the scheduler refused this node: {code}: {message}")
