"""What can go wrong for a program that wants translations, and what can it do about each?"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from dragoman.core.refusal import LASTING
from dragoman.protocol.fields import Error, ErrorCode


class DragomanError(Exception):
    """Whatever the SDK raises of its own accord, but for ValueError and TypeError on a wrong argument."""

    @property
    def retryable(self) -> bool:
        """Whether the same request may go well later."""
        return False


class SchedulerError(DragomanError):
    """The scheduler said no. `code` is one of docs/protocol.md, or a newer one; `details` is as it came."""

    code_default: ClassVar[str] = ErrorCode.INTERNAL_ERROR

    def __init__(self, message: str, *, code: str | None = None, details: dict[str, Any] | None = None) -> None:
        self.code = code or self.code_default
        self.message = message
        self.details = details or {}
        super().__init__(f"{self.code}: {message}")

    @property
    def retryable(self) -> bool:
        """Whether the scheduler said that the same request may go well later."""
        return self.details.get("retryable") is True

    @property
    def retry_after_s(self) -> float | None:
        """After how many seconds the scheduler would be asked again, if it said."""
        after_ms = self.details.get("retry_after_ms")
        is_number = isinstance(after_ms, int | float) and not isinstance(after_ms, bool)
        return max(0.0, float(after_ms or 0)) / 1000 if is_number else None

    @property
    def job_id(self) -> str | None:
        """The job that failed, if there was one."""
        job_id = self.details.get("job_id")
        return job_id if isinstance(job_id, str) else None


class RefusedError(SchedulerError):
    """The scheduler has no room for the request now; it did nothing with it."""


class NoAvailableNodeError(RefusedError):
    """No node can take the job now."""

    code_default = ErrorCode.NO_AVAILABLE_NODE

    @property
    def reasons(self) -> dict[str, int]:
        """How many nodes were passed over, by reason; empty when no node is connected."""
        reasons = self.details.get("reasons")
        if not isinstance(reasons, dict):
            return {}
        return {str(reason): count for reason, count in reasons.items() if isinstance(count, int)}

    @property
    def is_worth_waiting(self) -> bool:
        """Whether a node that is connected could take the job once it is free, ready or well again."""
        return any(reason not in LASTING for reason in self.reasons)


class QueueFullError(RefusedError):
    """Too many jobs wait already."""

    code_default = ErrorCode.QUEUE_FULL


class RateLimitedError(RefusedError):
    """The client, or its tenant, asks too often."""

    code_default = ErrorCode.RATE_LIMITED


class SchedulerDrainingError(RefusedError):
    """The instance is about to stop."""

    code_default = ErrorCode.SCHEDULER_DRAINING


class SchedulerDependencyDownError(RefusedError):
    """The scheduler cannot reach its store."""

    code_default = ErrorCode.SCHEDULER_DEPENDENCY_DOWN


class DeadlineExceededError(SchedulerError):
    """The job was not done within the `deadline_s` it had."""

    code_default = ErrorCode.DEADLINE_EXCEEDED


class JobCancelledError(SchedulerError):
    """The job was withdrawn."""

    code_default = ErrorCode.JOB_CANCELLED


class JobTimeoutError(SchedulerError):
    """A node, or one service of it, took too long."""

    code_default = ErrorCode.JOB_TIMEOUT


class ModelNotAvailableError(SchedulerError):
    """No node has a working model for it."""

    code_default = ErrorCode.MODEL_NOT_AVAILABLE


class InvalidMessageError(SchedulerError):
    """The scheduler could not make sense of what was asked; the message names the field."""

    code_default = ErrorCode.INVALID_MESSAGE


class UnsupportedFeatureError(SchedulerError):
    """The scheduler or the node cannot do this at all."""

    code_default = ErrorCode.UNSUPPORTED_FEATURE


class PayloadTooLargeError(SchedulerError):
    """The utterance makes a longer message than may be sent."""

    code_default = ErrorCode.PAYLOAD_TOO_LARGE


class UnauthorizedError(SchedulerError):
    """The token is missing or not good."""

    code_default = ErrorCode.UNAUTHORIZED


class ForbiddenError(SchedulerError):
    """The token is good, but not for this."""

    code_default = ErrorCode.FORBIDDEN


class MissingResultError(DragomanError):
    """The scheduler closed the utterance without a result; `reason` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the scheduler has no result for this utterance: {reason}")

    @property
    def retryable(self) -> bool:
        """Always: asked again, the scheduler does the job, or finds its result."""
        return True


class BadAnswerError(DragomanError):
    """The scheduler answered, but the answer makes no sense."""


class TimedOutError(DragomanError, TimeoutError):
    """No result came within `timeout_s`."""

    @property
    def retryable(self) -> bool:
        """Always: nobody said no."""
        return True


class ConnectFailedError(DragomanError, ConnectionError):
    """No connection to the scheduler came about; `status` is the HTTP status of a refusal, or 0."""

    def __init__(self, text: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(text)

    @property
    def retryable(self) -> bool:
        """Always: it may be there later."""
        return True


class GaveUpError(ConnectFailedError):
    """The connection was lost and did not come back within `reconnect_s`."""


class SessionLostError(DragomanError):
    """The scheduler no longer knows the session, and what was under way could not be asked for anew."""


class SessionEndedError(DragomanError):
    """The session is closed, or was never opened."""


class MixedUseError(DragomanError):
    """A session carries whole utterances or one stream of audio, not both: each kind is numbered by another side."""


_KINDS: Final[tuple[type[SchedulerError], ...]] = (
    NoAvailableNodeError,
    QueueFullError,
    RateLimitedError,
    SchedulerDrainingError,
    SchedulerDependencyDownError,
    DeadlineExceededError,
    JobCancelledError,
    JobTimeoutError,
    ModelNotAvailableError,
    InvalidMessageError,
    UnsupportedFeatureError,
    PayloadTooLargeError,
    UnauthorizedError,
    ForbiddenError,
)
_BY_CODE: Final[dict[str, type[SchedulerError]]] = {kind.code_default: kind for kind in _KINDS} | {
    ErrorCode.NMT_TIMEOUT.value: JobTimeoutError,
    ErrorCode.TTS_TIMEOUT.value: JobTimeoutError,
    ErrorCode.MODEL_LOAD_FAILED.value: ModelNotAvailableError,
    ErrorCode.MODEL_CORRUPTED.value: ModelNotAvailableError,
    ErrorCode.MODEL_VERIFY_FAILED.value: ModelNotAvailableError,
}


def from_wire(error: Error) -> SchedulerError:
    """The exception for an `error` message; of a code that is not known here, a plain SchedulerError."""
    kind = _BY_CODE.get(error.code, SchedulerError)
    return kind(error.message, code=error.code, details=error.details)
