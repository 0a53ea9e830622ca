"""What can be set, to what, and what holds when nothing is said? The one home of every default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from dragoman.config.phase2 import Phase2Settings
from dragoman.config.phase3 import Phase3Settings
from dragoman.config.section import (
    Bytes,
    Conflict,
    Count,
    CountOrZero,
    Milliseconds,
    MillisecondsOrZero,
    Percent,
    Port,
    Seconds,
    SecondsOrZero,
    Section,
    Text,
)


class ServerSettings(Section):
    """Where it listens, and how much it takes."""

    host: Text = Field(
        default="127.0.0.1", description="Address of the data port; only this machine reaches it unless it is 0.0.0.0."
    )
    port: Port = Field(default=5010, description="Data port: /ws/session, /ws/node, /health; 0 = any free one.")
    admin_host: Text = Field(default="127.0.0.1", description="Address of the admin port.")
    admin_port: Port = Field(default=5011, description="Admin port: /api, /metrics, /dashboard; 0 turns it off.")
    max_message_bytes: Bytes = Field(default=8_388_608, description="Largest message taken from a connection.")
    send_queue_bytes: Bytes = Field(
        default=4_194_304, description="How much may wait for a peer that reads slowly before it is cut off."
    )
    max_sessions: Count = Field(default=20_000, description="Sessions at a time on this instance.")
    max_nodes: Count = Field(default=20_000, description="Nodes connected to this instance.")
    shutdown_grace_seconds: SecondsOrZero = Field(
        default=30, description="How long running jobs may take after SIGTERM; 0 = none at all."
    )

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        if self.port == self.admin_port != 0 and self.host == self.admin_host:
            yield Conflict(
                keys=("admin_port", "port", "host", "admin_host"),
                text="must not be the data port; leave it out for 5011",
            )


class JobTimeoutSettings(Section):
    """How long a job may wait and how often it is tried."""

    pending_timeout_seconds: SecondsOrZero = Field(
        default=10, description="How long a job waits for a free node; 0 = refuse at once."
    )
    failover_max_attempts: CountOrZero = Field(default=3, description="Further attempts after the first.")
    ack_timeout_ms: MillisecondsOrZero = Field(
        default=3000, description="How soon a node must acknowledge a job; 0 = it need not."
    )
    scan_interval_ms: Milliseconds = Field(default=1000, description="How often leases are looked through.")
    send_cancel: bool = Field(
        default=True, description="Whether a node is told that a job it runs is of no use any more."
    )


class QueueSettings(Section):
    """Jobs waiting for a free node."""

    max_pending_jobs: Count = Field(default=10_000, description="Per instance; beyond it QUEUE_FULL.")


class LoadBalancerSettings(Section):
    """Which of the nodes that could do a job gets it."""

    strategy: Literal["least_connections", "random", "round_robin"] = Field(
        default="least_connections", description="The node with the most free room, any, or one after the other."
    )
    resource_threshold: Percent = Field(
        default=85.0, description="A node with cpu, gpu or memory use above it (in percent) is passed over."
    )


class FailureThresholdSettings(Section):
    """When a node that fails jobs gets none for a while."""

    window_size: Count = Field(default=5, description="How many of a node's last jobs count.")
    failure_count: Count = Field(default=3, description="Failures among them that take it out.")
    consecutive_failure_count: Count = Field(default=3, description="Failures in a row that take it out.")

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        if self.failure_count > self.window_size:
            yield Conflict(
                keys=("failure_count", "window_size"),
                text=f"must not be more than window_size = {self.window_size}: so many failures never fit in",
            )


class NodeHealthSettings(Section):
    """When a node may be given work."""

    heartbeat_interval_seconds: Seconds = Field(default=15, description="How often a node is to say how it is.")
    heartbeat_timeout_seconds: Seconds = Field(default=45, description="Silence after which a node counts as gone.")
    health_check_count: Count = Field(default=1, description="Good heartbeats that make a new node ready.")
    warmup_timeout_seconds: Seconds = Field(default=60, description="How long a new node may take to get ready.")
    status_scan_interval_seconds: Seconds = Field(default=30, description="How often the nodes are looked through.")
    require_gpu: bool = Field(default=False, description="Whether only nodes with a GPU are taken.")
    failure_threshold: FailureThresholdSettings = Field(default_factory=FailureThresholdSettings)

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        interval = self.heartbeat_interval_seconds
        if self.heartbeat_timeout_seconds <= interval:
            yield Conflict(
                keys=("heartbeat_timeout_seconds", "heartbeat_interval_seconds"),
                text=f"must be more than heartbeat_interval_seconds = {interval}",
            )


class TaskBindingSettings(Section):
    """What holds a request, a job and a slot together."""

    lease_seconds: Seconds = Field(
        default=90, description="How long a request_id stays bound after its job ended: a repeat gets the same result."
    )
    reserved_ttl_seconds: Seconds = Field(
        default=90, description="A reservation that nobody renews is given back after this."
    )
    spread_enabled: bool = Field(
        default=False, description="Whether the node that served a session last is avoided for its next job."
    )
    spread_window_seconds: Seconds = Field(default=30, description="How long it is avoided.")


class ModelNotAvailableSettings(Section):
    """What a node's MODEL_NOT_AVAILABLE does."""

    unavailable_ttl_seconds: Seconds = Field(
        default=60, description="How long the node gets no job that needs the service."
    )
    debounce_window_seconds: SecondsOrZero = Field(
        default=5, description="Repeated reports of the same service within it count once."
    )
    node_ratelimit_window_seconds: Seconds = Field(default=10, description="The window of the limit below.")
    node_ratelimit_max: Count = Field(default=30, description="Reports taken from one node within the window.")


class SegmentationSettings(Section):
    """Where audio that comes in chunks is cut into utterances."""

    pause_ms: Milliseconds = Field(default=3000, description="Silence that ends an utterance.")
    max_duration_ms: Milliseconds = Field(default=20_000, description="Length at which it is cut anyway.")


class ResultsSettings(Section):
    """How results get back to a session."""

    gap_timeout_ms: MillisecondsOrZero = Field(
        default=2000, description="How long later results wait for an earlier one that is missing."
    )
    resume_window_seconds: SecondsOrZero = Field(
        default=60, description="How long a session that lost its connection may come back; 0 = not at all."
    )
    retained_bytes_max: Bytes = Field(
        default=268_435_456,
        description="Bytes of ended jobs' results kept for repeated requests, per instance; the oldest go first.",
    )


class SchedulerSettings(Section):
    """How jobs are given to nodes."""

    max_concurrent_jobs_per_node: Count = Field(default=4, description="Slots of a node that does not say its own.")
    job_timeout_seconds: Seconds = Field(
        default=30, description="How long an attempt may take, from dispatch to result."
    )
    heartbeat_interval_seconds: Seconds = Field(
        default=15, description="How often an open connection is to show that it lives."
    )
    job_timeout: JobTimeoutSettings = Field(default_factory=JobTimeoutSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    load_balancer: LoadBalancerSettings = Field(default_factory=LoadBalancerSettings)
    node_health: NodeHealthSettings = Field(default_factory=NodeHealthSettings)
    task_binding: TaskBindingSettings = Field(default_factory=TaskBindingSettings)
    model_not_available: ModelNotAvailableSettings = Field(default_factory=ModelNotAvailableSettings)
    web_task_segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    results: ResultsSettings = Field(default_factory=ResultsSettings)
    phase2: Phase2Settings = Field(default_factory=Phase2Settings)
    phase3: Phase3Settings = Field(default_factory=Phase3Settings)


class AuthSettings(Section):
    """Who may connect."""

    mode: Literal["none", "jwt"] = Field(default="none", description="Everybody, or who brings a signed token.")


class ObservabilitySettings(Section):
    """What it tells about itself."""

    log_format: Literal["text", "json"] = Field(default="text", description="How the log looks.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )
    otlp_endpoint: str = Field(default="", description="Where OpenTelemetry traces go; empty = nowhere.")
    path_warn_ms: Milliseconds = Field(default=50, description="A step of a job's way that takes longer is logged.")


class Settings(Section):
    """Everything that can be set."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    observability: ObservabilitySettings = Field(default_factory=ObservabilitySettings)
