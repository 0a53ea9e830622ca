"""What is counted? Prometheus names, units in the name, labels from bounded sets: never the id of a job or a node.

What is counted for every job is counted by plain numbers here, and put into the library's form when somebody asks: its
own counters take a lock each time, and that was a tenth of the cost of a job.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_DISPATCH_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)


class Distribution:
    """How often each size was seen; for one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, size: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, size)] += 1
        self.total += size

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative counts, as Prometheus wants them."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return [(name, sum(self.counts[: place + 1])) for place, name in enumerate(names)]


class Metrics(Collector):
    """The figures of one instance, in a registry of its own."""

    def __init__(self) -> None:
        self.jobs: Tally[str] = Tally()
        """Jobs ended, by state."""
        self.pools_selected: Tally[str] = Tally()
        """Choices of nodes, by the pool that they came from."""
        self.pool_fallbacks: Tally[str] = Tally()
        """Choices that the pool chosen first did not serve, by reason."""
        self.slots: Callable[[], Mapping[tuple[str, str], int]] = dict
        """Slots by pool and state; looked up when somebody asks."""
        self.store_failures: Callable[[], Mapping[str, int]] = dict
        """What went wrong with the store, by kind; looked up when somebody asks."""
        self.dispatch_seconds = Distribution(_DISPATCH_BUCKETS)
        self.job_duration_seconds = Distribution(_DURATION_BUCKETS)
        self.registry = registry = CollectorRegistry()
        registry.register(self)
        self.refusals = Counter("dragoman_refusals", "Requests refused", ["reason"], registry=registry)
        self.reassignments = Counter("dragoman_reassignments", "Attempts that failed", ["reason"], registry=registry)
        self.late_results = Counter(
            "dragoman_late_results", "Results of attempts that are over, or not the sender's", registry=registry
        )
        self.lapsed_slots = Counter("dragoman_lapsed_slots", "Slots whose lease ran out", registry=registry)
        self.leaked_slots = Counter(
            "dragoman_leaked_slots", "Slots that no job relied on, found by the audit", registry=registry
        )
        self.letters_lost = Counter(
            "dragoman_letters_lost", "Notes to other instances that could not be posted", registry=registry
        )
        self.notes_expired = Counter(
            "dragoman_notes_expired", "Notes of other instances that came too late", registry=registry
        )
        self.dead_letters = Counter(
            "scheduler_phase2_dlq_moved", "Notes of other instances put aside as undeliverable", registry=registry
        )
        self.inbox_pending = Gauge(
            "scheduler_phase2_inbox_pending", "Letters to this instance that were not seen to", registry=registry
        )
        self.inbox_lag_seconds = Gauge(
            "dragoman_inbox_lag_seconds", "Age of the last letter when it was read", registry=registry
        )
        self.bad_messages = Counter("dragoman_bad_messages", "Messages not understood", ["peer"], registry=registry)
        self.model_unavailable = Counter(
            "dragoman_model_unavailable", "Reports of a missing model", ["outcome"], registry=registry
        )
        self.nodes = Gauge("dragoman_nodes", "Nodes known", ["status"], registry=registry)
        self.sessions = Gauge("dragoman_sessions", "Sessions open", registry=registry)
        self.pending_jobs = Gauge("dragoman_pending_jobs", "Jobs waiting for a node", registry=registry)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        counted = (
            ("dragoman_jobs", "Jobs ended, by state", "state", self.jobs),
            ("dragoman_store_failures", "Errors of the store, by kind", "kind", self.store_failures()),
            ("phase3_pool_selected", "Choices of nodes, by the pool they came from", "pool", self.pools_selected),
            ("phase3_pool_fallback", "Choices not from the pool chosen first", "reason", self.pool_fallbacks),
        )
        for name, text, label, counts in counted:
            family = CounterMetricFamily(name, text, labels=[label])
            for value, count in sorted(counts.items()):
                family.add_metric([value], count)
            yield family
        slots = GaugeMetricFamily("dragoman_slots", "Slots of connected nodes", labels=["pool", "state"])
        for (pool, state), count in sorted(self.slots().items()):
            slots.add_metric([pool, state], count)
        yield slots
        for name, text, seen in (
            ("dragoman_dispatch_seconds", "From an utterance to its job_assign", self.dispatch_seconds),
            ("dragoman_job_duration_seconds", "From an utterance to its end", self.job_duration_seconds),
        ):
            yield HistogramMetricFamily(name, text, buckets=seen.buckets(), sum_value=seen.total)
