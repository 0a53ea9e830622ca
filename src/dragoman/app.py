"""How does one instance start, go on and stop? The only place that picks a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from dragoman.clock import Clock, SystemClock
from dragoman.config.settings import Settings
from dragoman.edge.connection import CLOSE_RESTART
from dragoman.edge.server import Server
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.letters import Leaving
from dragoman.rounds import Rounds
from dragoman.routing.errands import Errands
from dragoman.store.interface import Store, StoreDownError
from dragoman.store.memory.store import MemoryStore
from dragoman.telemetry.logs import get_logger
from dragoman.wiring import Instance, wire

log = get_logger("app")

_SEND_AWAY_S: Final = 0.05
_CROSSING_S: Final = 0.25
"""Instances that stop at the same moment have heard of each other by then."""
_LEAVE_S: Final = 3.0
_JOB_TTL_MIN_MS: Final = 600_000


class App:
    """One running instance."""

    def __init__(self, instance: Instance, server: Server, rounds: Rounds) -> None:
        self.parts = instance.parts
        self.cluster = instance.cluster
        self.failure = rounds.failure
        """Why the instance cannot go on, once it cannot."""
        self._server = server

    @property
    def port(self) -> int:
        """The data port it listens on."""
        return self._server.port

    async def drain(self) -> None:
        """Take nothing new, and wait for what runs, at most the grace; then tell what did not end.

        Where there are other instances that stay, sessions are sent to them at once and find the ends of their jobs
        there; nodes are sent when they are done.
        """
        grace_s = self.parts.server.shutdown_grace_seconds
        jobs, router = self.parts.dispatcher.jobs, self.parts.router
        log.info("draining", jobs=len(jobs), grace_s=grace_s, peers=len(router.peers))
        for peer in router.peers:
            router.outbox.post(peer, Leaving())
        if router.peers:
            await asyncio.sleep(_CROSSING_S)
        self.parts.dispatcher.is_draining = True
        try:
            async with asyncio.timeout(grace_s):
                if router.staying():
                    await self._send_away()
                await jobs.wait_until_none()
        except TimeoutError:
            log.warning("grace is over", jobs=len(jobs))
            await self.parts.rescue.end_all(ErrorCode.SCHEDULER_DRAINING, "the instance stopped before it was done")
        # Results on their way to a client get a moment: a session is closed with nothing held back.
        for session in tuple(router.sessions.values()):
            await router.flush(session)

    async def leave(self) -> None:
        """Tell the other instances that this one stops in good order. What it could not end is left to them."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self.cluster.inbox.retry()
                # One whose id was taken has nothing to take leave of.
                if not len(self.parts.dispatcher.jobs) and not self.failure.done():
                    await self.cluster.inbox.close()
                    await self.parts.store.leave(self.parts.instance_id)
        except (StoreDownError, TimeoutError) as error:
            log.warning("could not say that this instance stops", why=str(error))

    async def _send_away(self) -> None:
        """Send sessions, and nodes that have nothing to do, to the other instances, until all are gone."""
        for session in tuple(self.parts.open.sessions):
            session.end(CLOSE_RESTART, "the instance stops; connect to another")
        for node_id in tuple(self.parts.router.nodes):
            self.parts.membership.drain(node_id)
        while self.parts.router.nodes:
            for mailbox in tuple(self.parts.router.nodes.values()):
                if not mailbox.assignments:
                    mailbox.close(CLOSE_RESTART, "the instance stops; connect to another")
            await asyncio.sleep(_SEND_AWAY_S)


@asynccontextmanager
async def running_app(
    settings: Settings,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    rng: Random | None = None,
) -> AsyncIterator[App]:
    """One instance, listening; it stops at the end of the block.

    Raises OSError when its port is taken, StoreDownError when its store cannot be used, IdTakenError when another
    instance has its id.
    """
    clock = clock or SystemClock()
    store = store or _make_store(settings, clock)
    try:
        async with _running(settings, store, clock, rng or Random()) as app:  # noqa: S311  # for choices, not secrets
            yield app
    except BaseExceptionGroup as failures:
        # A group of one is only the task group's wrapping: who called wants what went wrong.
        if len(failures.exceptions) > 1:
            raise
        raise failures.exceptions[0] from failures.exceptions[0].__cause__
    log.info("stopped")


def _make_store(settings: Settings, clock: Clock) -> Store:
    """The one place where it is decided where everything is remembered."""
    scheduler = settings.scheduler
    retained_bytes_max = scheduler.results.retained_bytes_max
    if not scheduler.phase2.enabled:
        return MemoryStore(clock, retained_bytes_max=retained_bytes_max)
    from dragoman.store.redis.store import RedisStore

    tries = scheduler.job_timeout.failover_max_attempts + 1
    life_s = scheduler.job_timeout.pending_timeout_seconds + scheduler.job_timeout_seconds
    return RedisStore(
        scheduler.phase2,
        clock,
        job_ttl_ms=max(_JOB_TTL_MIN_MS, tries * life_s * 2000),
        retained_bytes_max=retained_bytes_max,
        resume_window_ms=scheduler.results.resume_window_seconds * 1000,
    )


@asynccontextmanager
async def _running(settings: Settings, store: Store, clock: Clock, rng: Random) -> AsyncIterator[App]:
    await store.open()
    try:
        async with asyncio.TaskGroup() as group:
            errands = Errands()
            instance = wire(settings, store, clock, rng, errands)
            parts, cluster = instance.parts, instance.cluster
            await cluster.presence.join()
            await cluster.estate.look()
            await parts.directory.refresh()
            await cluster.estate.come_back()
            server = Server(parts)
            rounds = Rounds(instance, server)
            app = App(instance, server, rounds)
            await server.open()
            loops = rounds.start(group)
            if settings.scheduler.phase2.enabled:
                prefix = settings.scheduler.phase2.redis.key_prefix
                log.info("Phase2 enabled", instance_id=parts.instance_id, key_prefix=prefix)
            if settings.scheduler.phase3.enabled:
                pools = settings.scheduler.phase3
                log.info("Phase3 two-level scheduling", mode=pools.mode, sample_size=pools.random_sample_size)
            log.info("listening", host=settings.server.host, port=app.port, instance_id=parts.instance_id)
            try:
                yield app
            finally:
                await server.close()
                parts.dispatcher.alarms.stop()
                for task in loops:
                    task.cancel()
                await app.leave()
                await errands.finish()
    finally:
        await store.close()
