"""Which nodes are connected to other instances, and what do those need to know of ours?

The instance that has a node's connection decides how the node is; the others believe what it publishes. A node that
changed is published at once, how busy nodes are every now and then, and whoever reads reads only what changed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from dragoman.clock import Clock
from dragoman.cluster.pool_board import PoolBoard
from dragoman.core.capability import Service
from dragoman.core.ids import InstanceId, NodeId
from dragoman.core.node import Health, NodeStatus, gone
from dragoman.core.profiles import NodeEntry
from dragoman.core.view import FleetView
from dragoman.routing.router import Router
from dragoman.store.interface import Store
from dragoman.store.registry import Changes, NodeLoad, NodeSnapshot
from dragoman.telemetry.logs import get_logger

log = get_logger("directory")

_PUBLISHED_AT_ONCE: Final = 500
_UNAVAILABLE_MAX: Final = 16


class Directory:
    """Keeps the view true to what other instances say of their nodes, and tells them of ours."""

    def __init__(self, store: Store, view: FleetView, router: Router, clock: Clock, *, ttl_ms: int) -> None:
        self._store = store
        self._view = view
        self._router = router
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._cursor: str | None = None
        self._changed: dict[NodeId, None] = {}
        self.news = asyncio.Event()
        """Set while there is something that the others must know soon."""
        self.ready: set[NodeId] = set()
        """Nodes of others that have become ready since somebody last looked."""
        self._offline: OrderedDict[NodeId, int] = OrderedDict()
        """Nodes of others that are gone, by since when."""
        self.board = PoolBoard(store, view, router)
        """What the store shows of pools."""
        self._strangers: set[InstanceId] = set()
        """Instances that published nodes and were not known to be there."""
        self.own_count: Callable[[NodeId], int] = _none
        """How many jobs of this instance are at a node."""
        self.is_in_doubt: Callable[[], bool] = _never
        """Whether what is missing in the store may only not have been written again yet."""

    def note_change(self, node_id: NodeId) -> None:
        """A node of ours is not what it was: the others must know."""
        self._changed[node_id] = None
        self.news.set()

    def forget_published(self) -> None:
        """The store may have lost what it knew: publish everything of ours, and read everything of the others."""
        self._cursor = None
        self.board.forget()
        for node_id in self._router.nodes:
            self.note_change(node_id)

    async def let_go(self, node_id: NodeId) -> None:
        """A node's connection here is gone. If another instance has the node by now, find out what that says."""
        entry = self._view.get(node_id)
        if entry is not None and node_id not in self._router.node_homes:
            self._changed.pop(node_id, None)
            await self._store.publish(self._router.me, [self._snapshot(entry)], (), self._ttl_ms)
        await self._store.release_node(node_id, self._router.me)
        if await self._store.node_owner(node_id) is not None:
            self._cursor = None

    async def publish_changes(self) -> None:
        """Tell the others of nodes that are not what they were."""
        changed = list(self._changed)[:_PUBLISHED_AT_ONCE]
        snapshots = [self._snapshot(entry) for node_id in changed if (entry := self._view.get(node_id)) is not None]
        own = [snapshot for snapshot in snapshots if self._router.node_homes.get(snapshot.node.id) is None]
        await self._store.publish(self._router.me, own, (), self._ttl_ms)
        for node_id in changed:
            self._changed.pop(node_id, None)
        if not self._changed:
            self.news.clear()

    async def publish_loads(self) -> None:
        """Tell the others how busy nodes of ours are, of those at which something happened."""
        touched, self._view.touched = self._view.touched, set()
        loads = [
            NodeLoad(node_id, entry.used, entry.load, entry.is_overloaded)
            for node_id in touched
            if node_id in self._router.nodes and (entry := self._view.get(node_id)) is not None
        ]
        if loads and self._router.peers:
            await self._store.publish(self._router.me, (), loads, self._ttl_ms)

    async def refresh(self) -> list[NodeId]:
        """Read what the others published. Answers the nodes that were lost where we knew them."""
        if not self._strangers.isdisjoint(self._router.peers):
            # It published before we knew that it is there, and was not believed.
            self._cursor = None
        if self._cursor is None:
            self._strangers.clear()
        changes = await self._store.changes(self._cursor)
        lost = self._apply(changes)
        # While in doubt everything is read each time: who stays away until that is over is gone.
        self._cursor = None if self.is_in_doubt() else changes.cursor
        self._view.heard_ms = self._clock.now_ms()
        return lost

    def peer_gone(self, peer: InstanceId) -> list[NodeId]:
        """Another instance is gone, and the connections of its nodes with it. Answers these."""
        nodes = self._router.forget_peer(peer)
        for node_id in nodes:
            self._set_offline(node_id)
        return nodes

    def not_at(self, node_id: NodeId, home: InstanceId) -> None:
        """An instance says that it has not got a node's connection. Until somebody else says so, nobody has."""
        if self._router.node_homes.get(node_id) == home:
            del self._router.node_homes[node_id]
            self._set_offline(node_id)

    async def prune(self, older_ms: int) -> None:
        """Forget nodes that nobody has seen in so long."""
        before_ms = self._clock.now_ms() - older_ms
        while self._offline and next(iter(self._offline.values())) <= before_ms:
            node_id, _ = self._offline.popitem(last=False)
            if node_id not in self._router.nodes and node_id not in self._router.node_homes:
                self._view.drop(node_id)
        count = await self._store.prune_nodes(older_ms)
        if count:
            log.info("nodes forgotten", nodes=count, older_s=older_ms // 1000)

    # --- how

    def _apply(self, changes: Changes) -> list[NodeId]:
        lost: list[NodeId] = []
        for snapshot in changes.nodes:
            lost += self._enter(snapshot)
        vanished = list(changes.gone)
        if changes.is_complete:
            known = {snapshot.node.id for snapshot in changes.nodes}
            vanished += [node_id for node_id in self._router.node_homes if node_id not in known]
        for node_id in () if self.is_in_doubt() else vanished:
            if self._router.node_homes.pop(node_id, None) is not None:
                self._set_offline(node_id)
                lost.append(node_id)
        for load in changes.loads:
            self._set_load(load)
        return lost

    def _enter(self, snapshot: NodeSnapshot) -> list[NodeId]:
        """Believe what another instance says of a node. Answers the node if it was lost where we knew it."""
        node_id, home = snapshot.node.id, snapshot.home
        if home == self._router.me or node_id in self._router.nodes:
            return []
        before = self._router.node_homes.get(node_id)
        now_ms = self._clock.now_ms()
        health = Health(status=snapshot.status, registered_ms=now_ms, heartbeat_ms=now_ms)
        if home not in self._router.peers and snapshot.status is not NodeStatus.OFFLINE:
            # Nobody is there who could reach it; its connection was lost with that instance.
            health = gone(health)
            self._strangers.add(home)
        is_here = health.status is not NodeStatus.OFFLINE
        if is_here:
            self._router.node_homes[node_id] = home
        else:
            self._router.node_homes.pop(node_id, None)
            self._offline[node_id] = now_ms
        known = self._view.get(node_id)
        if health.status is NodeStatus.READY and (known is None or known.health.status is not NodeStatus.READY):
            self.ready.add(node_id)
        entry = self._view.put(snapshot.node, health)
        self._set_load(NodeLoad(node_id, snapshot.used, snapshot.load, snapshot.is_overloaded))
        for name, for_ms in snapshot.unavailable[:_UNAVAILABLE_MAX]:
            if name in Service.__members__.values():
                self._view.mark(entry, Service(name), now_ms + for_ms)
        return [node_id] if before is not None and (before != home or not is_here) else []

    def _set_load(self, load: NodeLoad) -> None:
        if load.node_id in self._router.nodes:
            return
        entry = self._view.get(load.node_id)
        if entry is not None:
            self._view.set_load(entry, load.load, is_overloaded=load.is_overloaded)
            # What we have given it since is not in the count.
            self._view.set_used(load.node_id, max(load.used, self.own_count(load.node_id)))

    def _set_offline(self, node_id: NodeId) -> None:
        entry = self._view.get(node_id)
        if entry is not None and node_id not in self._router.nodes:
            self._view.set_health(entry, gone(entry.health))
            self._offline[node_id] = self._clock.now_ms()

    def _snapshot(self, entry: NodeEntry) -> NodeSnapshot:
        now_ms = self._clock.now_ms()
        unavailable = tuple(
            (str(what), until_ms - now_ms)
            for what, until_ms in entry.marks.items()
            if isinstance(what, Service) and until_ms > now_ms
        )
        return NodeSnapshot(
            node=entry.node,
            home=self._router.me,
            status=entry.health.status,
            used=entry.used,
            load=entry.load,
            is_overloaded=entry.is_overloaded,
            unavailable=unavailable,
        )


def _never() -> bool:
    return False


def _none(node_id: NodeId) -> int:  # noqa: ARG001
    return 0
