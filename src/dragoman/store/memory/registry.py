"""How do instances in one process know of each other and of their nodes? As they would through a shared server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, NodeId, SessionId
from dragoman.store.registry import (
    Changes,
    Instance,
    NodeLoad,
    NodeSnapshot,
    PoolChange,
    PoolPlan,
    PoolRecord,
    Renewal,
)

_CHANGES_MAX: Final = 10_000


class MemoryRegistry:
    """See Registry."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._instances: dict[InstanceId, tuple[Instance, int]] = {}
        self._estates: dict[InstanceId, tuple[InstanceId, int]] = {}
        self._node_owners: dict[NodeId, tuple[InstanceId, int]] = {}
        self._snapshots: dict[NodeId, tuple[NodeSnapshot, int]] = {}
        self._seen_ms: dict[NodeId, int] = {}
        self._changes: deque[tuple[int, tuple[NodeId, ...], tuple[NodeLoad, ...]]] = deque(maxlen=_CHANGES_MAX)
        self._change = 0
        self._plan: PoolPlan | None = None
        self._members: dict[str, set[NodeId]] = {}

    @property
    def is_up(self) -> bool:
        """See Store."""
        return True

    @property
    def failures(self) -> Mapping[str, int]:
        """See Store. Nothing does."""
        return {}

    def on_return(self, callback: Callable[[], None]) -> None:
        """See Store. It never goes away."""

    async def join(self, instance: Instance, ttl_ms: int) -> bool:
        """See Store."""
        known = self._instances.get(instance.id)
        if known is not None and known[1] > self._clock.now_ms():
            return False
        self._instances[instance.id] = (instance, self._clock.now_ms() + ttl_ms)
        return True

    async def renew(self, instance: Instance, ttl_ms: int) -> Renewal:
        """See Store."""
        now_ms = self._clock.now_ms()
        known = self._instances.get(instance.id)
        is_alive = known is not None and known[1] > now_ms
        if known is not None and is_alive and known[0] != instance:
            return Renewal.TAKEN
        self._instances[instance.id] = (instance, now_ms + ttl_ms)
        return Renewal.RENEWED if is_alive else Renewal.RETURNED

    async def leave(self, instance_id: InstanceId) -> None:
        """See Store."""
        self._instances.pop(instance_id, None)

    async def instances(self) -> tuple[tuple[Instance | None, InstanceId], ...]:
        """See Store."""
        now_ms = self._clock.now_ms()
        return tuple(
            (instance if until_ms > now_ms else None, key) for key, (instance, until_ms) in self._instances.items()
        )

    async def is_alive(self, instance_id: InstanceId) -> bool:
        """See Store."""
        known = self._instances.get(instance_id)
        return known is not None and known[1] > self._clock.now_ms()

    async def claim_estate(self, dead: InstanceId, by: InstanceId, lease_ms: int) -> bool:
        """See Store."""
        now_ms = self._clock.now_ms()
        holder = self._estates.get(dead)
        if holder is not None and holder[0] != by and holder[1] > now_ms:
            return False
        self._estates[dead] = (by, now_ms + lease_ms)
        return True

    async def close_estate(self, dead: InstanceId) -> None:
        """See Store."""
        self._estates.pop(dead, None)
        known = self._instances.get(dead)
        if known is not None and known[1] <= self._clock.now_ms():
            del self._instances[dead]

    async def claim_node(
        self, node_id: NodeId, owner: InstanceId, displaced: InstanceId | None, ttl_ms: int
    ) -> InstanceId | None:
        """See Store."""
        holder = await self.node_owner(node_id)
        if holder is not None and holder not in (owner, displaced):
            return holder
        self._node_owners[node_id] = (owner, self._clock.now_ms() + ttl_ms)
        return None

    async def release_node(self, node_id: NodeId, owner: InstanceId) -> None:
        """See Store."""
        if await self.node_owner(node_id) == owner:
            del self._node_owners[node_id]

    async def node_owner(self, node_id: NodeId) -> InstanceId | None:
        """See Store."""
        holder = self._node_owners.get(node_id)
        return holder[0] if holder is not None and holder[1] > self._clock.now_ms() else None

    def renew_owners(
        self,
        owner: InstanceId,
        nodes: Sequence[NodeId],
        sessions: Sequence[SessionId],  # noqa: ARG002  # a session is kept until its holder lets go of it
        ttl_ms: int,
        keep_ms: int,  # noqa: ARG002
    ) -> None:
        """See Store."""
        now_ms = self._clock.now_ms()
        for node_id in nodes:
            holder = self._node_owners.get(node_id)
            if holder is None or holder[1] <= now_ms or holder[0] == owner:
                self._node_owners[node_id] = (owner, now_ms + ttl_ms)
            if node_id in self._snapshots and self._snapshots[node_id][0].home == owner:
                self._snapshots[node_id] = (self._snapshots[node_id][0], now_ms + ttl_ms)
                self._seen_ms[node_id] = now_ms

    async def publish(
        self, owner: InstanceId, nodes: Sequence[NodeSnapshot], loads: Sequence[NodeLoad], ttl_ms: int
    ) -> None:
        """See Store."""
        now_ms = self._clock.now_ms()
        published: list[NodeId] = []
        for snapshot in nodes:
            if await self.node_owner(snapshot.node.id) in (owner, None):
                self._snapshots[snapshot.node.id] = (snapshot, now_ms + ttl_ms)
                self._seen_ms[snapshot.node.id] = now_ms
                published.append(snapshot.node.id)
        if published or loads:
            self._change += 1
            self._changes.append((self._change, tuple(published), tuple(loads)))

    async def changes(self, cursor: str | None) -> Changes:
        """See Store."""
        now_ms = self._clock.now_ms()
        first = self._changes[0][0] if self._changes else self._change + 1
        if cursor is None or int(cursor) < first - 1:
            alive = tuple(snapshot for snapshot, until_ms in self._snapshots.values() if until_ms > now_ms)
            return Changes(cursor=str(self._change), nodes=alive, gone=(), loads=(), is_complete=True)
        new = [change for change in self._changes if change[0] > int(cursor)] if self._change > int(cursor) else []
        ids = dict.fromkeys(node_id for _, published, _ in new for node_id in published)
        known = {node_id: self._snapshots.get(node_id) for node_id in ids}
        return Changes(
            cursor=str(self._change),
            nodes=tuple(held[0] for held in known.values() if held is not None and held[1] > now_ms),
            gone=tuple(node_id for node_id, held in known.items() if held is None or held[1] <= now_ms),
            loads=tuple(load for _, _, loads in new for load in loads),
            is_complete=False,
        )

    async def prune_nodes(self, older_ms: int) -> int:
        """See Store."""
        before_ms = self._clock.now_ms() - older_ms
        old = [node_id for node_id, seen_ms in self._seen_ms.items() if seen_ms <= before_ms]
        for node_id in old:
            del self._seen_ms[node_id]
            self._snapshots.pop(node_id, None)
        return len(old)

    async def publish_pools(
        self,
        plan: tuple[PoolRecord, ...] | None,
        changes: Sequence[PoolChange],
        ttl_ms: int,  # noqa: ARG002  # who could read it ends with it
        *,
        renew: bool,  # noqa: ARG002
    ) -> None:
        """See Store."""
        for change in changes:
            members = self._members.setdefault(change.pool, set())
            members.update(change.joined)
            members.difference_update(change.left)
            if not members:
                del self._members[change.pool]
        if plan is not None and (self._plan is None or self._plan.pools != plan):
            self._plan = PoolPlan(version=1 if self._plan is None else self._plan.version + 1, pools=plan)

    async def pool_plan(self) -> PoolPlan | None:
        """See Store."""
        return self._plan

    async def pool_members(self, pool: str) -> frozenset[NodeId]:
        """See Store."""
        return frozenset(self._members.get(pool, ()))
