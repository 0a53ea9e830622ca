"""How are the parts of one instance put together?"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

from dragoman import __version__
from dragoman.clock import Clock
from dragoman.cluster.directory import Directory
from dragoman.cluster.membership import Membership, MembershipPolicy
from dragoman.cluster.presence import Presence
from dragoman.cluster.probes import Probes
from dragoman.config.pool_policy import pool_policy
from dragoman.config.settings import Settings
from dragoman.core.ids import InstanceId
from dragoman.core.node import HealthPolicy, NodeStatus
from dragoman.core.selection import RANKING_MAX, RANKING_SHARED_MAX, SelectionPolicy, Strategy
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.alarms import Alarms
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.estate import Estate
from dragoman.dispatch.feeding import Feeding
from dragoman.dispatch.handover import Handover
from dragoman.dispatch.inbox import Inbox, InboxPolicy
from dragoman.dispatch.live_jobs import DispatchPolicy
from dragoman.dispatch.recovery import Recovery
from dragoman.dispatch.rescue import Rescue
from dragoman.dispatch.results import Results
from dragoman.edge.outbound import Outbound
from dragoman.edge.parts import Parts, make_session
from dragoman.routing.errands import Errands
from dragoman.routing.outbox import Outbox
from dragoman.routing.router import Router
from dragoman.store import registry
from dragoman.store.interface import Store
from dragoman.telemetry.metrics import Metrics

_AUDIT_S: Final = 1.0
_AUDITS_PER_LEASE: Final = 10
_RETRY_IDLE_MS: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The parts that have to do with other instances."""

    presence: Presence
    estate: Estate
    inbox: Inbox
    feeding: Feeding
    recovery: Recovery
    audit_pause_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Everything of one instance."""

    parts: Parts
    cluster: Cluster
    alarm: asyncio.Event
    """Set when something falls due."""


def wire(settings: Settings, store: Store, clock: Clock, rng: Random, errands: Errands) -> Instance:
    """The parts of one instance over a store, put together and not yet running."""
    alarm = asyncio.Event()
    scheduler = settings.scheduler
    metrics, me = Metrics(), _instance_id(scheduler.phase2.instance_id)
    view = FleetView(pool_policy(scheduler.phase3))
    router = _router(settings, store, clock, Outbox(store, me, errands, metrics), me)
    presence_ttl_ms = scheduler.phase2.node_snapshot.presence_ttl_seconds * 1000
    directory = Directory(store, view, router, clock, ttl_ms=presence_ttl_ms)
    membership = Membership(
        store=store,
        view=view,
        policy=_membership_policy(settings),
        clock=clock,
        metrics=metrics,
        router=router,
        directory=directory,
    )
    dispatcher = Dispatcher(
        store=store,
        router=router,
        view=view,
        selection=_selection_policy(settings),
        policy=_dispatch_policy(settings),
        waiting=WaitingRoom(scheduler.queue.max_pending_jobs),
        alarms=Alarms(clock, alarm.set),
        clock=clock,
        rng=rng,
        metrics=metrics,
    )
    directory.own_count = dispatcher.jobs.count_at
    parts = Parts(
        instance_id=me,
        server=settings.server,
        scheduler=scheduler,
        clock=clock,
        store=store,
        router=router,
        membership=membership,
        dispatcher=dispatcher,
        results=Results(dispatcher, membership, clock),
        rescue=Rescue(dispatcher, membership, clock),
        metrics=metrics,
        errands=errands,
        outbound=Outbound(asyncio.get_running_loop(), store.flush),
        directory=directory,
        probes=Probes(router),
        handover=Handover(dispatcher, clock, partial(make_session, scheduler, settings.server)),
        owner_ttl_ms=scheduler.phase2.owner_ttl_seconds * 1000,
    )
    _gauge(parts, view)
    return Instance(parts=parts, cluster=_cluster(settings, parts), alarm=alarm)


def _cluster(settings: Settings, parts: Parts) -> Cluster:
    shared, dispatcher = settings.scheduler.phase2, parts.dispatcher
    instance = registry.Instance(
        id=parts.instance_id,
        address=f"{settings.server.host}:{settings.server.port}",
        started_ms=time.time_ns() // 1_000_000,
        version=__version__,
    )
    presence = Presence(parts.store, parts.router, instance, ttl_ms=shared.instance_presence_ttl_seconds * 1000)
    policy = InboxPolicy(
        block_ms=shared.stream_block_ms,
        count=shared.stream_count,
        buries=shared.dlq_enabled,
        deliveries_max=shared.dlq_max_deliveries,
        bury_idle_ms=shared.dlq_min_idle_ms,
        retry_idle_ms=min(_RETRY_IDLE_MS, shared.dlq_min_idle_ms),
    )
    inbox = Inbox(dispatcher, parts.membership, parts.results, parts.rescue, parts.handover, policy, parts.errands)
    feeding = Feeding(dispatcher, inbox)
    parts.results.share = feeding.share
    parts.results.on_released = feeding.released
    parts.directory.is_in_doubt = presence.is_in_doubt
    inbox.on_probed = parts.probes.answered
    recovery = Recovery(dispatcher, parts.results, parts.directory, presence, owner_ttl_ms=parts.owner_ttl_ms)
    parts.store.on_return(recovery.is_due)
    return Cluster(
        presence=presence,
        estate=Estate(dispatcher, parts.rescue, inbox, parts.directory, presence),
        inbox=inbox,
        feeding=feeding,
        recovery=recovery,
        audit_pause_s=min(dispatcher.policy.lease_ms / 1000 / _AUDITS_PER_LEASE, _AUDIT_S),
    )


def _selection_policy(settings: Settings) -> SelectionPolicy:
    scheduler = settings.scheduler
    is_shared = scheduler.phase2.enabled
    return SelectionPolicy(
        strategy=Strategy(scheduler.load_balancer.strategy),
        ranking_max=RANKING_SHARED_MAX if is_shared else RANKING_MAX,
        doubts_full=is_shared,
        sample_size=scheduler.phase3.random_sample_size if scheduler.phase3.enabled else None,
        fresh_ms=scheduler.phase2.node_snapshot.refresh_interval_ms if is_shared else 0,
    )


def _router(settings: Settings, store: Store, clock: Clock, outbox: Outbox, me: InstanceId) -> Router:
    scheduler = settings.scheduler
    return Router(
        store,
        clock,
        outbox,
        me,
        resume_window_ms=scheduler.results.resume_window_seconds * 1000,
        job_timeout_ms=scheduler.job_timeout_seconds * 1000,
        lease_ms=scheduler.task_binding.reserved_ttl_seconds * 1000,
    )


def _gauge(parts: Parts, view: FleetView) -> None:
    """Figures that are looked up when somebody asks."""
    parts.metrics.sessions.set_function(lambda: len(parts.router.sessions))
    parts.metrics.store_failures = lambda: parts.store.failures
    parts.metrics.slots = view.count_slots
    parts.metrics.pending_jobs.set_function(lambda: len(parts.dispatcher.waiting))
    for status in NodeStatus:
        parts.metrics.nodes.labels(status).set_function(partial(_count_nodes, view, status))


def _count_nodes(view: FleetView, status: NodeStatus) -> int:
    return sum(entry.health.status is status for entry in view)


def _dispatch_policy(settings: Settings) -> DispatchPolicy:
    scheduler = settings.scheduler
    binding = scheduler.task_binding
    return DispatchPolicy(
        job_timeout_ms=scheduler.job_timeout_seconds * 1000,
        ack_timeout_ms=scheduler.job_timeout.ack_timeout_ms,
        waiting_ms=scheduler.job_timeout.pending_timeout_seconds * 1000,
        failovers_max=scheduler.job_timeout.failover_max_attempts,
        sends_cancel=scheduler.job_timeout.send_cancel,
        lease_ms=binding.reserved_ttl_seconds * 1000,
        keep_ms=binding.lease_seconds * 1000,
        slow_ms=settings.observability.path_warn_ms,
        spread_ms=binding.spread_window_seconds * 1000 if binding.spread_enabled else 0,
    )


def _membership_policy(settings: Settings) -> MembershipPolicy:
    scheduler = settings.scheduler
    health, failure, missing = (
        scheduler.node_health,
        scheduler.node_health.failure_threshold,
        scheduler.model_not_available,
    )
    return MembershipPolicy(
        health=HealthPolicy(
            heartbeat_timeout_ms=health.heartbeat_timeout_seconds * 1000,
            health_check_count=health.health_check_count,
            warmup_timeout_ms=health.warmup_timeout_seconds * 1000,
            window_size=failure.window_size,
            failure_count=failure.failure_count,
            consecutive_failure_count=failure.consecutive_failure_count,
        ),
        slots_default=scheduler.max_concurrent_jobs_per_node,
        resource_threshold=scheduler.load_balancer.resource_threshold,
        requires_gpu=health.require_gpu,
        lease_ms=scheduler.task_binding.reserved_ttl_seconds * 1000,
        unavailable_ms=missing.unavailable_ttl_seconds * 1000,
        debounce_ms=missing.debounce_window_seconds * 1000,
        reports_window_ms=missing.node_ratelimit_window_seconds * 1000,
        reports_max=missing.node_ratelimit_max,
        offline_max=settings.server.max_nodes,
        forget_ms=scheduler.phase2.node_snapshot.remove_stale_after_seconds * 1000,
    )


def _instance_id(given: str) -> InstanceId:
    if given != "auto":
        return InstanceId(given)
    return InstanceId(f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
