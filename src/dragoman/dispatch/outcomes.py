"""What can come of a submission, and why can an attempt be over?"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

from dragoman.core.ids import JobId
from dragoman.core.lifecycle import JobState
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.session_messages import Terminal


class FailoverReason(StrEnum):
    """Why an attempt is over before its result came."""

    ACK_TIMEOUT = "ack_timeout"
    JOB_TIMEOUT = "job_timeout"
    NODE_LOST = "node_lost"
    NODE_REFUSED = "node_refused"
    MODEL_UNAVAILABLE = "model_unavailable"
    LEASE_LAPSED = "lease_lapsed"
    UNREACHABLE = "unreachable"


FAILURE_CODES: Final = {
    FailoverReason.ACK_TIMEOUT: ErrorCode.JOB_TIMEOUT,
    FailoverReason.JOB_TIMEOUT: ErrorCode.JOB_TIMEOUT,
    FailoverReason.LEASE_LAPSED: ErrorCode.JOB_TIMEOUT,
    FailoverReason.NODE_LOST: ErrorCode.NODE_UNAVAILABLE,
    FailoverReason.UNREACHABLE: ErrorCode.NODE_UNAVAILABLE,
    FailoverReason.NODE_REFUSED: ErrorCode.NODE_OVERLOADED,
    FailoverReason.MODEL_UNAVAILABLE: ErrorCode.MODEL_NOT_AVAILABLE,
}


REFUSALS: Final = frozenset({ErrorCode.NO_AVAILABLE_NODE, ErrorCode.QUEUE_FULL, ErrorCode.SCHEDULER_DRAINING})
"""What no node took was refused, not done: the same request may be asked again."""


class Accepted(Struct, frozen=True):
    """There is a job for it: at a node, or waiting."""

    job_id: JobId
    state: JobState


class AlreadyKnown(Struct, frozen=True):
    """It was asked before, and this is what became of it so far."""

    job_id: JobId
    state: JobState
    terminal: Terminal | None


class Refused(Struct, frozen=True):
    """No job was made of it: asking again may go well."""

    error: Error


Submission: TypeAlias = Accepted | AlreadyKnown | Refused
