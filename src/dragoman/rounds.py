"""What has to be done again and again? Each thing in a task of its own, for as long as the instance runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from dragoman.cluster.presence import LOOK_MS, IdTakenError
from dragoman.edge.server import Server
from dragoman.store.interface import StoreDownError
from dragoman.store.registry import Renewal
from dragoman.telemetry.logs import get_logger
from dragoman.wiring import Instance

log = get_logger("rounds")

_LOOK_AFTER_S: Final = 1.0
_STREAMS_S: Final = 0.1
_AFTER_FAILURE_S: Final = 0.5
_RENEWALS: Final = 3
"""Of a claim, in the time it lasts."""
_PUBLISH_S: Final = 0.05
_FEED_S: Final = 0.05
_PROGRESS_S: Final = 0.1
"""A job that is over by then need not be written down as accepted."""
_PRUNE_S: Final = 10.0
_AUDITED_AT_ONCE: Final = 200


class Rounds:
    """The rounds of one instance."""

    def __init__(self, instance: Instance, server: Server) -> None:
        self.parts = instance.parts
        self.cluster = instance.cluster
        self._server = server
        self._alarm = instance.alarm
        self.failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Why the instance cannot go on, once it cannot."""

    def start(self, group: asyncio.TaskGroup) -> tuple[asyncio.Task[None], ...]:
        """Start what has to be done again and again."""
        steps = (
            self._answer_alarms,
            self._look_after_connections,
            self._sweep,
            self._cut_streams,
            self._renew_presence,
            self._look_for_instances,
            self._hold_on,
            self._publish,
            self._refresh,
            self._show_pools,
            self._prune,
            self._read_letters,
            self._retry_letters,
            self._feed,
            self._tell_progress,
            self._audit,
            self._recover,
        )
        return tuple(group.create_task(self._repeat(step), name=step.__name__) for step in steps)

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

    # --- with other instances

    async def _renew_presence(self) -> None:
        renewal = await self.cluster.presence.renew()
        if renewal is None or renewal is not Renewal.RENEWED:
            self.cluster.recovery.is_due()

    async def _look_for_instances(self) -> None:
        await asyncio.sleep(LOOK_MS / 1000)
        await self.cluster.estate.look()

    async def _hold_on(self) -> None:
        """Say again which nodes and sessions this instance holds."""
        await asyncio.sleep(self.parts.owner_ttl_ms / 1000 / _RENEWALS)
        router = self.parts.router
        attached = [session.id for session in router.sessions.values() if session.mailbox is not None]
        nodes = list(router.nodes)
        self.parts.store.renew_owners(
            self.parts.instance_id, nodes, attached, self.parts.owner_ttl_ms, router.resume_window_ms
        )

    async def _publish(self) -> None:
        await self.parts.directory.news.wait()
        await asyncio.sleep(_PUBLISH_S)
        await self.parts.directory.publish_changes()

    async def _refresh(self) -> None:
        await asyncio.sleep(self.parts.scheduler.phase2.node_snapshot.refresh_interval_ms / 1000)
        await self.parts.directory.publish_loads()
        if self.parts.scheduler.phase2.node_snapshot.enabled:
            for node_id in await self.parts.directory.refresh():
                await self.parts.rescue.node_lost(node_id)
            ready, self.parts.directory.ready = self.parts.directory.ready, set()
            for node_id in ready:
                await self.parts.dispatcher.serve_waiting(node_id)

    async def _show_pools(self) -> None:
        await asyncio.sleep(self.parts.scheduler.phase2.node_snapshot.refresh_interval_ms / 1000)
        await self.parts.directory.board.publish(self.parts.clock.now_ms())

    async def _prune(self) -> None:
        await asyncio.sleep(_PRUNE_S)
        older_s = self.parts.scheduler.phase2.node_snapshot.remove_stale_after_seconds
        if older_s:
            await self.parts.directory.prune(older_s * 1000)

    async def _read_letters(self) -> None:
        await self.cluster.inbox.read()

    async def _retry_letters(self) -> None:
        await asyncio.sleep(self.parts.scheduler.phase2.dlq_scan_interval_ms / 1000)
        await self.cluster.inbox.retry()

    async def _feed(self) -> None:
        """Ask the others for free slots while jobs wait here, and tell those that ask of ours."""
        await self.parts.dispatcher.is_hungry.wait()
        await asyncio.sleep(_FEED_S)
        for node_id in self.cluster.feeding.feed():
            await self.parts.dispatcher.serve_waiting(node_id)

    async def _tell_progress(self) -> None:
        await self.parts.dispatcher.has_progress.wait()
        await asyncio.sleep(_PROGRESS_S)
        await self.parts.dispatcher.tell_progress()

    async def _audit(self) -> None:
        await asyncio.sleep(self.cluster.audit_pause_s)
        nodes = self.parts.rescue.next_to_audit(_AUDITED_AT_ONCE)
        if nodes:
            await self.parts.rescue.audit(nodes)

    async def _recover(self) -> None:
        await self.cluster.recovery.recover()
        await self.cluster.inbox.post_again()

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step for ever. One that fails is logged and done again: what it is for must not end with it."""
        is_down = False
        while True:
            try:
                await step()
                is_down = False
            except StoreDownError as error:
                if not is_down:
                    log.warning("step not done, the store is down", step=getattr(step, "__name__", ""), why=str(error))
                is_down = True
                await asyncio.sleep(_AFTER_FAILURE_S)
            except IdTakenError as error:
                if not self.failure.done():
                    self.failure.set_result(error)
                await asyncio.sleep(_AFTER_FAILURE_S)
            except Exception:
                log.exception("step failed", step=getattr(step, "__name__", ""))
                await asyncio.sleep(_AFTER_FAILURE_S)

    async def _end_sessions(self) -> None:
        """End the sessions whose time to come back has run out."""
        router = self.parts.router
        before_ms = self.parts.clock.now_ms() - router.resume_window_ms
        for session in tuple(router.sessions.values()):
            if session.detached_ms is not None and session.detached_ms <= before_ms:
                # One that another instance holds by now, and that this one was never asked for, only lies here.
                if await self.parts.store.session_owner(session.id) in (router.me, None):
                    await self.parts.rescue.session_over(session.id)
                router.sessions.pop(session.id, None)
                await self.parts.store.close_session(session.id, self.parts.instance_id)
                log.info("session over, it did not come back", session_id=session.id)
