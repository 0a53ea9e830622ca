"""Which jobs of ours are under way, where is each, and when must it be looked at again?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import JobRequest
from dragoman.core.lifecycle import JobState
from dragoman.core.pools import OUTSIDE

K = TypeVar("K")

_UNREACHED_MAX: Final = 16
"""Attempts that got to no node. They take no time, and nodes that cannot be reached are soon known as such."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchPolicy:
    """The bounds of a job's life. Times in milliseconds; 0 for `ack_timeout_ms` and `waiting_ms` turns them off."""

    job_timeout_ms: int
    ack_timeout_ms: int
    waiting_ms: int
    failovers_max: int
    sends_cancel: bool
    lease_ms: int
    keep_ms: int
    slow_ms: int
    """From how long on the way from a session to a node, without any waiting, is told in the log."""
    spread_ms: int
    """For how long a session's last node is avoided; 0: not at all."""


class LiveJob:
    """A job accepted here and not ended."""

    __slots__ = (
        "attempt",
        "due_ms",
        "failures",
        "given_ms",
        "id",
        "node_id",
        "pool",
        "request",
        "state",
        "tried",
        "wait_until_ms",
    )

    def __init__(self, request: JobRequest) -> None:
        self.request = request
        self.id = request.job_id
        self.state = JobState.CREATED
        self.attempt = 0
        self.node_id: NodeId | None = None
        self.pool = OUTSIDE
        """The pool that its node is in."""
        self.tried: tuple[NodeId, ...] = ()
        """Nodes that failed at it."""
        self.failures = 0
        """How many attempts failed at a node. One that did not get to its node hurt nobody."""
        self.given_ms = 0
        """When it was given to its node."""
        self.wait_until_ms = 0
        self.due_ms: int | None = None
        """For when the alarm is set."""

    def failed(self, node_id: NodeId, *, had_it: bool) -> None:
        """An attempt failed at a node, or before it got there."""
        self.tried = (*self.tried, node_id)
        self.failures += had_it

    def is_hopeless(self, policy: DispatchPolicy) -> bool:
        """Whether it has had all its attempts."""
        return self.failures > policy.failovers_max or self.attempt - self.failures > _UNREACHED_MAX

    def next_due_ms(self, policy: DispatchPolicy) -> int:
        """When something must be done about it if nothing happens before."""
        match self.state:
            case JobState.CREATED:
                due_ms = self.wait_until_ms
            case JobState.RESERVED | JobState.DISPATCHED if policy.ack_timeout_ms:
                due_ms = self.given_ms + min(policy.ack_timeout_ms, policy.job_timeout_ms)
            case _:
                due_ms = self.given_ms + policy.job_timeout_ms
        deadline_ms = self.request.deadline_ms
        return due_ms if deadline_ms is None else min(due_ms, deadline_ms)


class LiveJobs:
    """All of them, by id, node and session."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, LiveJob] = {}
        self._at: dict[NodeId, dict[JobId, LiveJob]] = {}
        self._of: dict[SessionId, dict[JobId, LiveJob]] = {}
        self._nobody = asyncio.Event()
        self._nobody.set()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[LiveJob]:
        return iter(tuple(self._jobs.values()))

    def get(self, job_id: JobId) -> LiveJob | None:
        """The job, if it is under way here."""
        return self._jobs.get(job_id)

    def add(self, job: LiveJob) -> None:
        """A job begins."""
        self._jobs[job.id] = job
        self._of.setdefault(job.request.session_id, {})[job.id] = job
        self._nobody.clear()

    def at(self, node_id: NodeId) -> tuple[LiveJob, ...]:
        """The jobs at a node."""
        return tuple(self._at.get(node_id, {}).values())

    def count_at(self, node_id: NodeId) -> int:
        """How many jobs are at a node."""
        return len(self._at.get(node_id, ()))

    def of(self, session_id: SessionId) -> tuple[LiveJob, ...]:
        """The jobs of a session."""
        return tuple(self._of.get(session_id, {}).values())

    def place(self, job: LiveJob, node_id: NodeId, attempt: int) -> None:
        """The job has a slot at a node."""
        job.node_id = node_id
        job.attempt = attempt
        job.state = JobState.RESERVED
        self._at.setdefault(node_id, {})[job.id] = job

    def displace(self, job: LiveJob) -> None:
        """The job is at no node any more."""
        if job.node_id is not None:
            _discard(self._at, job.node_id, job.id)
            job.node_id = None
        job.state = JobState.CREATED

    def end(self, job: LiveJob, state: JobState) -> None:
        """The job ended."""
        self.displace(job)
        job.state = state
        if self._jobs.pop(job.id, None) is not None:
            _discard(self._of, job.request.session_id, job.id)
        if not self._jobs:
            self._nobody.set()

    async def wait_until_none(self) -> None:
        """Wait until the last one has ended."""
        await self._nobody.wait()


def _discard(index: dict[K, dict[JobId, LiveJob]], key: K, job_id: JobId) -> None:
    jobs = index.get(key)
    if jobs is not None:
        jobs.pop(job_id, None)
        if not jobs:
            del index[key]


def names(request: JobRequest) -> dict[str, Any]:
    """What names a request in a log line."""
    return {"job_id": request.job_id, "session_id": request.session_id, "trace_id": request.trace_id}


def ids(job: LiveJob) -> dict[str, Any]:
    """What names a job in a log line."""
    return names(job.request) | {"node_id": job.node_id, "attempt": job.attempt}
