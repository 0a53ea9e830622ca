"""What is a node, and may it be given work? The status machine of docs/protocol.md, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from dragoman.core.capability import Languages, Need, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.refusal import Reason


class NodeStatus(StrEnum):
    """Only READY nodes get jobs."""

    REGISTERING = "registering"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a node says of itself that decides which jobs it can take."""

    id: NodeId
    slots: int
    services: frozenset[Service]
    languages: Languages = field(default_factory=Languages)
    tenant: TenantId | None = None
    accepts_public: bool = True
    service_ids: tuple[tuple[str, Service], ...] = ()
    """Names of its services and models, to know what a complaint is about."""

    def refuses(self, need: Need, *, is_named: bool) -> Reason | None:
        """Why it can never take a job with this need; None when it can.

        A node that is not public serves its own tenant, and, when it has none, who asks for it by name (`is_named`).
        """
        is_own = need.tenant == self.tenant if self.tenant is not None else is_named
        if not (self.accepts_public or is_own):
            return Reason.TENANT
        if not need.services <= self.services:
            return Reason.SERVICE_MISSING
        if not all(self.languages.serve(need.services, src, tgt) for src, tgt in need.pairs):
            return Reason.LANGUAGE
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """When a node counts as well. Times in milliseconds."""

    heartbeat_timeout_ms: int = 45_000
    health_check_count: int = 1
    warmup_timeout_ms: int = 60_000
    window_size: int = 5
    failure_count: int = 3
    consecutive_failure_count: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a node is doing: its status and the evidence for it."""

    status: NodeStatus
    registered_ms: int
    heartbeat_ms: int
    good_heartbeats: int = 0
    is_draining: bool = False
    """It wants no more work until it registers anew, whatever else happens to it."""
    outcomes: tuple[bool, ...] = ()
    """The last heartbeats and jobs, newest last: whether each went well."""


def newly_registered(now_ms: int) -> Health:
    """A node that has just said who it is."""
    return Health(status=NodeStatus.REGISTERING, registered_ms=now_ms, heartbeat_ms=now_ms)


def after_heartbeat(health: Health, *, is_good: bool, now_ms: int, policy: HealthPolicy) -> Health:
    """A heartbeat came. Good means: figures that make sense, and at least one service ready."""
    health = _record(replace(health, heartbeat_ms=now_ms), is_good=is_good, policy=policy)
    good = health.good_heartbeats + 1 if is_good else 0
    health = replace(health, good_heartbeats=good)
    match health.status:
        case NodeStatus.OFFLINE if health.is_draining:
            return replace(health, status=NodeStatus.DRAINING)
        case NodeStatus.REGISTERING | NodeStatus.OFFLINE if good >= policy.health_check_count:
            return replace(health, status=NodeStatus.READY, outcomes=())
        case NodeStatus.DEGRADED if is_good:
            return replace(health, status=NodeStatus.READY, outcomes=())
        case NodeStatus.OFFLINE:
            return replace(health, status=NodeStatus.REGISTERING, registered_ms=now_ms)
        case _:
            return health


def drained(health: Health) -> Health:
    """It asked for no more work, or was told that it gets none."""
    return replace(health, status=NodeStatus.DRAINING, is_draining=True)


def gone(health: Health) -> Health:
    """Its socket closed."""
    return replace(health, status=NodeStatus.OFFLINE, good_heartbeats=0, outcomes=())


def after_job(health: Health, *, is_good: bool, policy: HealthPolicy) -> Health:
    """A job ended at the node: well, or by its fault (it did not answer, or could not do what it said it can)."""
    if is_good and not health.outcomes:
        return health
    return _record(health, is_good=is_good, policy=policy)


def after_time(health: Health, *, now_ms: int, policy: HealthPolicy) -> Health:
    """Nothing came; time went by."""
    if health.status is NodeStatus.OFFLINE:
        return health
    if now_ms - health.heartbeat_ms >= policy.heartbeat_timeout_ms:
        return replace(health, status=NodeStatus.OFFLINE, good_heartbeats=0)
    if health.status is NodeStatus.REGISTERING and now_ms - health.registered_ms >= policy.warmup_timeout_ms:
        return replace(health, status=NodeStatus.DEGRADED)
    return health


def _record(health: Health, *, is_good: bool, policy: HealthPolicy) -> Health:
    outcomes = (*health.outcomes, is_good)[-policy.window_size :]
    recent = outcomes[-policy.consecutive_failure_count :]
    has_failed = outcomes.count(False) >= policy.failure_count or (
        len(recent) == policy.consecutive_failure_count and not any(recent)
    )
    if has_failed and health.status is NodeStatus.READY:
        return replace(health, status=NodeStatus.DEGRADED, outcomes=outcomes)
    return replace(health, outcomes=outcomes)
