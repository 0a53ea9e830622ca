"""In which states can a job be, and which moves between them are there?

Every store takes the states a move may start from out of this one table.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """How far a job has come. Attempts go round from CREATED to RUNNING; within an attempt a job only moves forward."""

    CREATED = "CREATED"
    RESERVED = "RESERVED"
    DISPATCHED = "DISPATCHED"
    ACCEPTED = "ACCEPTED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


ENDED = frozenset({JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
"""States that nothing leaves."""

AT_A_NODE = frozenset({JobState.DISPATCHED, JobState.ACCEPTED, JobState.RUNNING})
"""States in which a node has been given the job."""

_GIVEN_UP = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

# Back to CREATED is a new attempt: the node failed, and another is looked for. Within an attempt a step may be passed
# over: how far a node has come is written down only if there is time before its result.
MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.CREATED: frozenset({JobState.RESERVED}) | _GIVEN_UP,
    JobState.RESERVED: frozenset(
        {JobState.DISPATCHED, JobState.ACCEPTED, JobState.RUNNING, JobState.FINISHED, JobState.CREATED}
    )
    | _GIVEN_UP,
    JobState.DISPATCHED: frozenset({JobState.ACCEPTED, JobState.RUNNING, JobState.FINISHED, JobState.CREATED})
    | _GIVEN_UP,
    JobState.ACCEPTED: frozenset({JobState.RUNNING, JobState.FINISHED, JobState.CREATED}) | _GIVEN_UP,
    JobState.RUNNING: frozenset({JobState.FINISHED, JobState.CREATED}) | _GIVEN_UP,
    JobState.FINISHED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

SOURCES: dict[JobState, frozenset[JobState]] = {
    to: frozenset(state for state, targets in MOVES.items() if to in targets) for to in JobState
}
"""For each state, those from which it may be entered."""
