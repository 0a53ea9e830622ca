"""What is each pool asked for, and how long do jobs wait for it?"""

from __future__ import annotations

from dragoman.core.capacity import Capacity, Meter, plan_capacity
from dragoman.core.explain import list_pools
from dragoman.core.pools import OUTSIDE
from dragoman.core.view import FleetView
from dragoman.dispatch.live_jobs import LiveJob


class Demands:
    """Meters of the pools, from the jobs of this instance."""

    def __init__(self, view: FleetView) -> None:
        self._view = view
        self._meters: dict[str, Meter] = {}

    def begin(self, job: LiveJob, now_ms: int) -> None:
        """A job was given to its node."""
        job.pool = pool = self._pool_of(job)
        (self._meters.get(pool) or self._meter(pool, now_ms)).begin(now_ms, now_ms - job.request.accepted_ms)

    def end(self, job: LiveJob, now_ms: int) -> None:
        """A job was done by its node."""
        self._meter(job.pool, now_ms).end(now_ms, now_ms - job.given_ms)

    def capacities(self, now_ms: int, *, target_s: float, share: float = 0.01) -> tuple[Capacity, ...]:
        """For each pool: whether it has slots enough for no more than that share of jobs to wait longer."""
        reports = list_pools(self._view)
        names = {report.name for report in reports}
        for name in [name for name in self._meters if name not in names]:
            del self._meters[name]
        return tuple(
            plan_capacity(
                report.name,
                slots=report.slots,
                busy_slots=report.busy_slots,
                demand=self._meter(report.name, now_ms).read(now_ms),
                target_s=target_s,
                share=share,
            )
            for report in reports
        )

    def _meter(self, pool: str, now_ms: int) -> Meter:
        meter = self._meters.get(pool)
        if meter is None:
            meter = self._meters[pool] = Meter(now_ms)
        return meter

    def _pool_of(self, job: LiveJob) -> str:
        """The pool for the job that its node is in; of several the first by name."""
        entry = None if job.node_id is None else self._view.get(job.node_id)
        return OUTSIDE if entry is None else self._view.route(job.request.need).homes.get(entry.profile, OUTSIDE)
