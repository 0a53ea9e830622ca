"""Which waiting job is served next?

While every node that could take a job is full, the job waits: the most urgent priority first, within a priority the
earliest deadline first, within a deadline the first come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dragoman.core.capability import Need
from dragoman.core.ids import JobId
from dragoman.core.profiles import NodeEntry

_VOID_MAX: Final = 64
"""Places kept for jobs that left, beside as many as there are jobs."""


@dataclass(order=True, slots=True)
class _Ticket:
    urgency: int
    deadline_ms: int
    serial: int
    job_id: JobId = field(compare=False)
    is_void: bool = field(compare=False, default=False)


class WaitingRoom:
    """Waiting jobs, one queue for each need; bounded."""

    def __init__(self, length_max: int) -> None:
        self.length_max = length_max
        self._queues: dict[Need, list[_Ticket]] = {}
        self._tickets: dict[JobId, tuple[Need, _Ticket]] = {}
        self._serial = 0
        self._void_count = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._tickets

    @property
    def is_full(self) -> bool:
        """Whether nobody more may wait."""
        return len(self._tickets) >= self.length_max

    def length(self, need: Need) -> int:
        """How many wait for this need (some that left meanwhile may still be counted)."""
        return len(self._queues.get(need, ()))

    def put(self, job_id: JobId, need: Need, *, priority: int, deadline_ms: int) -> None:
        """Let a job wait; one that waits already keeps its place."""
        if job_id in self._tickets:
            return
        self._serial += 1
        ticket = _Ticket(-priority, deadline_ms, self._serial, job_id)
        heapq.heappush(self._queues.setdefault(need, []), ticket)
        self._tickets[job_id] = (need, ticket)

    def remove(self, job_id: JobId) -> None:
        """The job waits no longer."""
        found = self._tickets.pop(job_id, None)
        if found is not None:
            need, ticket = found
            ticket.is_void = True
            self._void_count += 1
            self._trim(need)
            if self._void_count > len(self._tickets) + _VOID_MAX:
                self._sweep()

    def next_for(self, entry: NodeEntry, now_ms: int, is_barred: Callable[[JobId], bool]) -> JobId | None:
        """The job that a node with a free slot should take; it stays in the room until removed.

        A job for which `is_barred` holds must not go to this node, and those behind it wait with it.
        """
        best: _Ticket | None = None
        for need, queue in self._queues.items():
            first = queue[0]
            if best is not None and not first < best:
                continue
            if entry.refuses(need, now_ms) is None and not is_barred(first.job_id):
                best = first
        return None if best is None else best.job_id

    def _trim(self, need: Need) -> None:
        queue = self._queues[need]
        while queue and queue[0].is_void:
            heapq.heappop(queue)
            self._void_count -= 1
        if not queue:
            del self._queues[need]

    def _sweep(self) -> None:
        """Take out what was removed behind another: while urgent jobs keep coming it would never get to the front."""
        for queue in self._queues.values():
            queue[:] = [ticket for ticket in queue if not ticket.is_void]
            heapq.heapify(queue)
        self._void_count = 0
