"""What is counted? Prometheus names, units in the name, labels from bounded sets: never the id of a job or a node."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_DISPATCH_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)


class Metrics:
    """The figures of one instance, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs = Counter("dragoman_jobs", "Jobs that reached a state", ["state"], registry=self.registry)
        self.dispatch_seconds = Histogram(
            "dragoman_dispatch_seconds",
            "From an utterance to its job_assign",
            buckets=_DISPATCH_BUCKETS,
            registry=self.registry,
        )
        self.job_duration_seconds = Histogram(
            "dragoman_job_duration_seconds",
            "From an utterance to its end",
            buckets=_DURATION_BUCKETS,
            registry=self.registry,
        )
        self.refusals = Counter("dragoman_refusals", "Requests refused", ["reason"], registry=self.registry)
        self.reassignments = Counter(
            "dragoman_reassignments", "Jobs moved to another attempt", ["reason"], registry=self.registry
        )
        self.late_results = Counter(
            "dragoman_late_results", "Results of attempts that are over or not the sender's", registry=self.registry
        )
        self.lapsed_slots = Counter("dragoman_lapsed_slots", "Slots whose lease ran out", registry=self.registry)
        self.bad_messages = Counter(
            "dragoman_bad_messages", "Messages not understood", ["peer"], registry=self.registry
        )
        self.nodes = Gauge("dragoman_nodes", "Nodes known", ["status"], registry=self.registry)
        self.sessions = Gauge("dragoman_sessions", "Sessions open", registry=self.registry)
        self.pending_jobs = Gauge("dragoman_pending_jobs", "Jobs waiting for a node", registry=self.registry)
        self.model_unavailable = Counter(
            "dragoman_model_unavailable", "Reports of a missing model", ["outcome"], registry=self.registry
        )
