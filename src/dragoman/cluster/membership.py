"""Which nodes are there, how are they, and what can they do? What nodes say of themselves becomes the view."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dragoman.clock import Clock
from dragoman.cluster.directory import Directory
from dragoman.core.capability import Need, Service
from dragoman.core.ids import InstanceId, JobId, NodeId
from dragoman.core.node import (
    Health,
    HealthPolicy,
    NodeStatus,
    after_heartbeat,
    after_job,
    after_time,
    drained,
    gone,
    newly_registered,
)
from dragoman.core.profiles import NodeEntry
from dragoman.core.view import FleetView
from dragoman.protocol.codec import FormatError
from dragoman.protocol.declarations import busiest, is_plausible, read_heartbeat, read_register
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.letters import NodeFailed
from dragoman.protocol.node_messages import NodeHeartbeat, NodeRegister
from dragoman.routing.router import Router
from dragoman.store.interface import Release, Store
from dragoman.telemetry.logs import get_logger
from dragoman.telemetry.metrics import Metrics

log = get_logger("membership")

CAPABILITY_SCHEMA: Final = "2.0"

_ORPHAN_GRACE_MS: Final = 1000
"""A heartbeat may have been written before the node read that a job is over; one this much later was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPolicy:
    """What is asked of nodes. Times in milliseconds."""

    health: HealthPolicy
    slots_default: int
    resource_threshold: float
    requires_gpu: bool
    lease_ms: int
    unavailable_ms: int
    debounce_ms: int
    reports_window_ms: int
    reports_max: int
    forget_ms: int
    """How long a node that is gone is remembered; 0: until there are too many."""
    offline_max: int
    """Nodes remembered that are not connected."""


class Membership:
    """Keeps the view true to what nodes say."""

    def __init__(
        self,
        *,
        store: Store,
        view: FleetView,
        policy: MembershipPolicy,
        clock: Clock,
        metrics: Metrics,
        router: Router,
        directory: Directory,
    ) -> None:
        self._store = store
        self._router = router
        self._directory = directory
        self._view = view
        self._policy = policy
        self._clock = clock
        self._metrics = metrics
        self._by_heartbeat: OrderedDict[NodeId, None] = OrderedDict()
        """Every node that is not offline, the longest silent first: a scan looks at those that are due."""
        self._warming: set[NodeId] = set()
        self._offline: OrderedDict[NodeId, int] = OrderedDict()
        self._reports: dict[NodeId, tuple[int, int]] = {}
        self._told: dict[str, int] = {}

    def register(self, message: NodeRegister) -> NodeId | Error:
        """Enter a node, or say why not. A node without an id is given one."""
        node_id = NodeId(message.node_id or f"node-{secrets.token_hex(4).upper()}")
        if message.capability_schema_version not in (None, CAPABILITY_SCHEMA):
            text = f"capability_schema_version: {message.capability_schema_version!r}; wanted {CAPABILITY_SCHEMA!r}"
            return Error(code=ErrorCode.INVALID_CAPABILITY_SCHEMA, message=text)
        if self._policy.requires_gpu and not message.hardware.gpus:
            text = "hardware.gpus: none; this scheduler takes only nodes with a GPU (require_gpu)"
            return Error(code=ErrorCode.NO_GPU_AVAILABLE, message=text)
        try:
            node = read_register(message, node_id, slots_default=self._policy.slots_default)
        except FormatError as error:
            return Error(code=ErrorCode.INVALID_MESSAGE, message=str(error))
        now_ms = self._clock.now_ms()
        self._router.node_homes.pop(node_id, None)
        self._view.put(node, newly_registered(now_ms))
        self._directory.note_change(node_id)
        self._offline.pop(node_id, None)
        self._seen(node_id)
        self._warming.add(node_id)
        log.info(
            "node registered",
            node_id=node_id,
            slots=node.slots,
            services=" ".join(sorted(node.services)),
            version=message.version,
            platform=message.platform,
        )
        return node_id

    async def heartbeat(self, node_id: NodeId, message: NodeHeartbeat) -> Error | None:
        """Note what a node says of itself and what it runs. Answers what is wrong with it, if something is."""
        entry = self._view.get(node_id)
        if entry is None:
            return Error(code=ErrorCode.NODE_UNAVAILABLE, message="this node is not known any more; register again")
        try:
            node = read_heartbeat(message, entry.node)
        except FormatError as error:
            return Error(code=ErrorCode.INVALID_MESSAGE, message=str(error))
        now_ms = self._clock.now_ms()
        usage = message.resource_usage
        is_good = is_plausible(usage) and bool(node.services)
        self._seen(node_id)
        before = entry.health
        health = after_heartbeat(before, is_good=is_good, now_ms=now_ms, policy=self._policy.health)
        if node != entry.node:
            self._directory.note_change(node_id)
        self._view.put(node, health)
        load = busiest(usage)
        self._view.set_load(entry, load, is_overloaded=load > self._policy.resource_threshold)
        self._changed(entry, before)
        await self._renew(node_id, message)
        return None

    async def release(self, node_id: NodeId, job_id: JobId, attempt: int) -> None:
        """The node is done with an attempt that was over already: its slot is free."""
        if await self._store.release_slot(node_id, job_id, attempt) is Release.RELEASED:
            self._view.give_back(node_id)

    def is_full(self, node_id: NodeId) -> None:
        """The node said that it can take no more: believed until it says how it is, or is done with a job."""
        entry = self._view.get(node_id)
        if entry is not None:
            self._view.set_used(node_id, entry.node.slots + 1)

    def job_ended(self, node_id: NodeId, *, is_good: bool) -> None:
        """A job ended at a node: well, or by its fault. How a node is, decides the instance that it is connected to."""
        home = self._router.node_homes.get(node_id)
        if home is not None:
            if not is_good:
                self._router.outbox.post(home, NodeFailed(node_id))
            return
        entry = self._view.get(node_id)
        if entry is None or (is_good and not entry.health.outcomes):
            return
        before = entry.health
        self._view.set_health(entry, after_job(before, is_good=is_good, policy=self._policy.health))
        self._changed(entry, before)

    def drain(self, node_id: NodeId) -> None:
        """The node gets no more jobs, until it registers anew; what it runs goes on."""
        self._set_health(node_id, drained)

    def lost(self, node_id: NodeId) -> None:
        """The node's socket closed. It is remembered for a while: it may come back, and may still be at work."""
        if node_id not in self._router.node_homes:
            self._set_health(node_id, gone)
        while len(self._offline) > self._policy.offline_max:
            self._forget_oldest()

    def not_at(self, node_id: NodeId, home: InstanceId) -> None:
        """Another instance has not got a node's connection, as we believed."""
        self._directory.not_at(node_id, home)

    def scan(self) -> list[NodeId]:
        """Time went by: the nodes that have fallen silent since."""
        now_ms = self._clock.now_ms()
        self._view.expire_marks(now_ms)
        silent: list[NodeId] = []
        for node_id in self._due(now_ms):
            entry = self._view.get(node_id)
            if entry is None:
                continue
            before = entry.health
            self._view.set_health(entry, after_time(before, now_ms=now_ms, policy=self._policy.health))
            self._changed(entry, before)
            if entry.health.status is NodeStatus.OFFLINE:
                silent.append(node_id)
        if self._policy.forget_ms:
            while self._offline and next(iter(self._offline.values())) + self._policy.forget_ms <= now_ms:
                self._forget_oldest()
        return silent

    def mark_unavailable(self, node_id: NodeId, need: Need | None, details: Mapping[str, Any]) -> None:
        """The node said it lacks a model: it gets no such jobs for a while. Who says so too often is not heard.

        The mark is on the service that `details` names (`service_id` or `model_id`), else on just this need.
        """
        entry = self._view.get(node_id)
        if entry is None:
            return
        now_ms = self._clock.now_ms()
        if self._reports_too_often(node_id, now_ms):
            self._metrics.model_unavailable.labels("rate_limited").inc()
            return
        named = details.get("service_id") or details.get("model_id")
        service = dict(entry.node.service_ids).get(named) if isinstance(named, str) else None
        what = service or need
        if what is None:
            return
        self._view.mark(entry, what, now_ms + self._policy.unavailable_ms)
        if node_id in self._router.nodes:
            self._directory.note_change(node_id)
        self._metrics.model_unavailable.labels("marked").inc()
        self._tell_unavailable(node_id, service, now_ms)

    # --- steps

    async def _renew(self, node_id: NodeId, message: NodeHeartbeat) -> None:
        if message.running_job_ids is not None:
            running: list[JobId] | None = [JobId(job_id) for job_id in message.running_job_ids]
        else:
            # An older node does not list its jobs; that it runs none is all that its number can tell.
            running = [] if message.resource_usage.running_jobs == 0 else None
        slots = await self._store.renew_slots(node_id, running, self._policy.lease_ms, orphaned_for_ms=_ORPHAN_GRACE_MS)
        self._view.set_used(node_id, slots.used)
        if slots.released:
            log.info("slots given back, the node is done with them", node_id=node_id, slots=len(slots.released))
            mailbox = self._router.nodes.get(node_id)
            if mailbox is not None:
                for job_id, attempt in slots.released:
                    mailbox.forget(job_id, attempt)

    def _forget_oldest(self) -> None:
        node_id, _ = self._offline.popitem(last=False)
        if node_id not in self._router.node_homes:
            self._view.drop(node_id)
        self._reports.pop(node_id, None)

    def _set_health(self, node_id: NodeId, change: Callable[[Health], Health]) -> None:
        entry = self._view.get(node_id)
        if entry is None:
            return
        before = entry.health
        self._view.set_health(entry, change(before))
        self._changed(entry, before)

    def _seen(self, node_id: NodeId) -> None:
        self._by_heartbeat[node_id] = None
        self._by_heartbeat.move_to_end(node_id)

    def _due(self, now_ms: int) -> list[NodeId]:
        due = list(self._warming)
        for node_id in self._by_heartbeat:
            entry = self._view.get(node_id)
            if entry is not None and now_ms - entry.health.heartbeat_ms < self._policy.health.heartbeat_timeout_ms:
                break
            due.append(node_id)
        return due

    def _changed(self, entry: NodeEntry, before: Health) -> None:
        after = entry.health
        node_id = entry.node.id
        if after.status is not NodeStatus.REGISTERING:
            self._warming.discard(node_id)
        if after.status is before.status:
            return
        if after.status is NodeStatus.OFFLINE:
            self._by_heartbeat.pop(node_id, None)
            self._offline[node_id] = self._clock.now_ms()
        else:
            self._offline.pop(node_id, None)
        self._directory.note_change(node_id)
        log.info("node status", node_id=node_id, status=after.status, was=before.status)

    def _reports_too_often(self, node_id: NodeId, now_ms: int) -> bool:
        since_ms, count = self._reports.get(node_id, (now_ms, 0))
        if now_ms - since_ms >= self._policy.reports_window_ms:
            since_ms, count = now_ms, 0
        self._reports[node_id] = (since_ms, count + 1)
        return count >= self._policy.reports_max

    def _tell_unavailable(self, node_id: NodeId, service: Service | None, now_ms: int) -> None:
        key = service or "this pair"
        if now_ms - self._told.get(key, -self._policy.debounce_ms) < self._policy.debounce_ms:
            return
        self._told[key] = now_ms
        log.warning("node lacks a model", node_id=node_id, service=key, for_ms=self._policy.unavailable_ms)
