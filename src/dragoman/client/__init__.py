"""The SDK of programs that speak: `connect` to a scheduler and `translate` text or audio, many at a time.

async with connect("ws://127.0.0.1:5010/ws/session", src="en", tgt="es") as session:
    print((await session.translate("Good morning")).translated)
"""

from dragoman.client.audio import Audio, AudioError
from dragoman.client.errors import (
    BadAnswerError,
    ConnectFailedError,
    DeadlineExceededError,
    DragomanError,
    ForbiddenError,
    GaveUpError,
    InvalidMessageError,
    JobCancelledError,
    JobTimeoutError,
    MissingResultError,
    MixedUseError,
    ModelNotAvailableError,
    NoAvailableNodeError,
    PayloadTooLargeError,
    QueueFullError,
    RateLimitedError,
    RefusedError,
    SchedulerDependencyDownError,
    SchedulerDrainingError,
    SchedulerError,
    SessionEndedError,
    SessionLostError,
    TimedOutError,
    UnauthorizedError,
    UnsupportedFeatureError,
)
from dragoman.client.patience import RetryPolicy
from dragoman.client.session import Session, connect
from dragoman.client.stream import AudioStream
from dragoman.client.translation import Partial, Progress, Stage, Translation, Update
from dragoman.client.utterance import Utterance

__all__ = [
    "Audio",
    "AudioError",
    "AudioStream",
    "BadAnswerError",
    "ConnectFailedError",
    "DeadlineExceededError",
    "DragomanError",
    "ForbiddenError",
    "GaveUpError",
    "InvalidMessageError",
    "JobCancelledError",
    "JobTimeoutError",
    "MissingResultError",
    "MixedUseError",
    "ModelNotAvailableError",
    "NoAvailableNodeError",
    "Partial",
    "PayloadTooLargeError",
    "Progress",
    "QueueFullError",
    "RateLimitedError",
    "RefusedError",
    "RetryPolicy",
    "SchedulerDependencyDownError",
    "SchedulerDrainingError",
    "SchedulerError",
    "Session",
    "SessionEndedError",
    "SessionLostError",
    "Stage",
    "TimedOutError",
    "Translation",
    "UnauthorizedError",
    "UnsupportedFeatureError",
    "Update",
    "Utterance",
    "connect",
]
