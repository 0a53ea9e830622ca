"""How are the parts of one instance put together, kept going and stopped? The only place that picks a store."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final

from dragoman.clock import Clock, SystemClock
from dragoman.cluster.membership import Membership, MembershipPolicy
from dragoman.config.settings import Settings
from dragoman.core.ids import InstanceId
from dragoman.core.node import HealthPolicy, NodeStatus
from dragoman.core.selection import SelectionPolicy, Strategy
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.alarms import Alarms
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.live_jobs import DispatchPolicy
from dragoman.dispatch.rescue import Rescue
from dragoman.dispatch.results import Results
from dragoman.edge.eager import Errands
from dragoman.edge.outbound import Outbound
from dragoman.edge.parts import Parts
from dragoman.edge.server import Server
from dragoman.protocol.fields import ErrorCode
from dragoman.routing.router import Router
from dragoman.store.interface import Store
from dragoman.store.memory import MemoryStore
from dragoman.telemetry.logs import get_logger
from dragoman.telemetry.metrics import Metrics

log = get_logger("app")

_LOOK_AFTER_S: Final = 1.0
_STREAMS_S: Final = 0.1
_AFTER_FAILURE_S: Final = 1.0


class App:
    """One running instance."""

    def __init__(self, parts: Parts, server: Server, alarm: asyncio.Event) -> None:
        self.parts = parts
        self._server = server
        self._alarm = alarm

    @property
    def port(self) -> int:
        """The data port it listens on."""
        return self._server.port

    async def drain(self) -> None:
        """Take nothing new, and wait for what runs, at most the grace; then tell what did not end."""
        grace_s = self.parts.server.shutdown_grace_seconds
        jobs = self.parts.dispatcher.jobs
        self.parts.dispatcher.is_draining = True
        log.info("draining", jobs=len(jobs), grace_s=grace_s)
        try:
            async with asyncio.timeout(grace_s):
                await jobs.wait_until_none()
        except TimeoutError:
            log.warning("grace is over", jobs=len(jobs))
            await self.parts.rescue.end_all(ErrorCode.SCHEDULER_DRAINING, "the instance stopped before it was done")
        # Results on their way to a client get a moment: a session is closed with nothing held back.
        for session in tuple(self.parts.router.sessions.values()):
            await self.parts.router.flush(session)

    def start(self, group: asyncio.TaskGroup) -> tuple[asyncio.Task[None], ...]:
        """Start what has to be done again and again."""
        steps = (self._answer_alarms, self._look_after_connections, self._sweep, self._cut_streams)
        return tuple(group.create_task(_repeat(step), name=step.__name__) for step in steps)

    async def _answer_alarms(self) -> None:
        await self._alarm.wait()
        self._alarm.clear()
        await self.parts.rescue.answer_alarms()

    async def _look_after_connections(self) -> None:
        await asyncio.sleep(_LOOK_AFTER_S)
        self._server.look_after()
        for node_id in self.parts.membership.scan():
            await self.parts.rescue.node_lost(node_id)
        await self._end_sessions()

    async def _sweep(self) -> None:
        await asyncio.sleep(self.parts.scheduler.job_timeout.scan_interval_ms / 1000)
        await self.parts.rescue.lapse()
        await self.parts.store.sweep()

    async def _cut_streams(self) -> None:
        await asyncio.sleep(_STREAMS_S)
        streaming = self.parts.open.streaming
        for connection in tuple(streaming):
            await connection.cut_pause()
            if connection.session is None or not connection.session.segmenter.has_begun:
                streaming.discard(connection)

    async def _end_sessions(self) -> None:
        """End the sessions whose time to come back has run out."""
        router = self.parts.router
        before_ms = self.parts.clock.now_ms() - router.resume_window_ms
        for session in tuple(router.sessions.values()):
            if session.detached_ms is not None and session.detached_ms <= before_ms:
                await self.parts.rescue.session_over(session.id)
                router.sessions.pop(session.id, None)
                await self.parts.store.close_session(session.id)
                log.info("session over, it did not come back", session_id=session.id)


async def _repeat(step: Callable[[], Awaitable[None]]) -> None:
    """Do a step for ever. One that fails is logged and done again: what it is for must not end with it."""
    while True:
        try:
            await step()
        except Exception:
            log.exception("step failed", step=getattr(step, "__name__", ""))
            await asyncio.sleep(_AFTER_FAILURE_S)


@asynccontextmanager
async def running_app(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    rng: Random | None = None,
) -> AsyncIterator[App]:
    """One instance, listening; it stops at the end of the block. Raises OSError when its port is taken."""
    clock = clock or SystemClock()
    store = store or MemoryStore(clock, retained_bytes_max=settings.scheduler.results.retained_bytes_max)
    try:
        async with _running(settings, store, clock, rng or Random()) as app:  # noqa: S311  # for choices, not secrets
            yield app
    except BaseExceptionGroup as failures:
        # A group of one is only the task group's wrapping: who called wants what went wrong.
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    log.info("stopped")


@asynccontextmanager
async def _running(settings: Settings, store: Store, clock: Clock, rng: Random) -> AsyncIterator[App]:
    alarm = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        parts = _wire(settings, store, clock, rng, Errands(group), alarm)
        server = Server(parts)
        app = App(parts, server, alarm)
        await server.open()
        loops = app.start(group)
        log.info("listening", host=settings.server.host, port=app.port, instance_id=parts.instance_id)
        try:
            yield app
        finally:
            await server.close()
            parts.dispatcher.alarms.stop()
            for task in loops:
                task.cancel()


def _wire(settings: Settings, store: Store, clock: Clock, rng: Random, errands: Errands, alarm: asyncio.Event) -> Parts:
    scheduler = settings.scheduler
    metrics = Metrics()
    view = FleetView()
    router = Router(store, clock, resume_window_ms=scheduler.results.resume_window_seconds * 1000)
    membership = Membership(store=store, view=view, policy=_membership_policy(settings), clock=clock, metrics=metrics)
    dispatcher = Dispatcher(
        store=store,
        router=router,
        view=view,
        selection=SelectionPolicy(strategy=Strategy(scheduler.load_balancer.strategy)),
        policy=_dispatch_policy(settings),
        waiting=WaitingRoom(scheduler.queue.max_pending_jobs),
        alarms=Alarms(clock, alarm.set),
        clock=clock,
        rng=rng,
        metrics=metrics,
    )
    parts = Parts(
        instance_id=_instance_id(),
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
        outbound=Outbound(asyncio.get_running_loop()),
    )
    _gauge(parts, view)
    return parts


def _gauge(parts: Parts, view: FleetView) -> None:
    """Figures that are looked up when somebody asks."""
    parts.metrics.sessions.set_function(lambda: len(parts.router.sessions))
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


def _instance_id() -> InstanceId:
    return InstanceId(f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
