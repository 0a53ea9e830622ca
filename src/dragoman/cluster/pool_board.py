"""Which pools are there, and who is in them, for operators and programs that read the store along?

A pool is an index, never a lock: no instance chooses by what lies on the store. Each instance writes, as differences,
what its view says of the nodes that are connected to it, of those that are gone, and of those that it wrote of before.
So the last that anybody writes of a node is what all views have come to say, and nothing is ever cleared to be written
again.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from dragoman.core.ids import NodeId
from dragoman.core.pools import Pool
from dragoman.core.view import FleetView
from dragoman.routing.router import Router
from dragoman.store.interface import Store
from dragoman.store.registry import PoolChange, PoolRecord

POOLS_TTL_MS: Final = 600_000
_RENEWALS: Final = 3
_NODES_AT_ONCE: Final = 5_000


class PoolBoard:
    """Keeps the pools on the store true."""

    def __init__(self, store: Store, view: FleetView, router: Router) -> None:
        self._store = store
        self._view = view
        self._router = router
        self._written: dict[NodeId, frozenset[str]] = {}
        """What this instance wrote last of a node."""
        self._plan: tuple[PoolRecord, ...] | None = None
        self._renewed_ms = 0
        self._audited = ""
        self._suspects: frozenset[NodeId] = frozenset()

    def forget(self) -> None:
        """The store may have lost what it knew: write everything again."""
        self._plan = None
        self._written.clear()
        if self._view.pools.policy.is_on:
            self._view.joined.update(self._router.nodes)

    async def publish(self, now_ms: int) -> None:
        """Write what has changed."""
        if not self._view.pools.policy.is_on:
            return
        dirty = self._take_dirty()
        try:
            changes, written = self._differences(dirty)
            plan = tuple(sorted((_record(group.pool) for group in self._view.pools.planned()), key=_by_name))
            is_due = now_ms - self._renewed_ms >= POOLS_TTL_MS // _RENEWALS
            if changes or is_due or plan != self._plan:
                shown = plan if is_due or plan != self._plan else None
                await self._store.publish_pools(shown, changes, POOLS_TTL_MS, renew=is_due)
        except BaseException:
            self._view.joined |= dirty
            raise
        self._written |= written
        self._plan = plan
        if is_due:
            self._renewed_ms = now_ms
        for node_id in [node_id for node_id in written if self._view.get(node_id) is None]:
            del self._written[node_id]
        await self._audit()

    # --- how

    def _take_dirty(self) -> set[NodeId]:
        """Nodes of which something may have to be written."""
        pools = self._view.pools
        dirty, self._view.joined = self._view.joined, set()
        for name in pools.replanned:
            group = pools.groups.get(name)
            for profile in group.profiles.values() if group is not None else ():
                dirty.update(profile.nodes)
        pools.replanned = set()
        while len(dirty) > _NODES_AT_ONCE:
            self._view.joined.add(dirty.pop())
        return dirty

    def _differences(self, dirty: set[NodeId]) -> tuple[list[PoolChange], dict[NodeId, frozenset[str]]]:
        joined: dict[str, list[NodeId]] = defaultdict(list)
        left: dict[str, list[NodeId]] = defaultdict(list)
        written: dict[NodeId, frozenset[str]] = {}
        for node_id in dirty:
            wanted, had = self._pools_of(node_id), self._written.get(node_id)
            if had is None and wanted and node_id not in self._router.nodes:
                # Whoever has its connection writes it.
                continue
            if had is None:
                had = self._pools_of(node_id, is_gone=True) if not wanted else frozenset()
            for name in wanted - had:
                joined[name].append(node_id)
            for name in had - wanted:
                left[name].append(node_id)
            written[node_id] = wanted
        names = sorted({*joined, *left})
        return [PoolChange(name, tuple(joined[name]), tuple(left[name])) for name in names], written

    def _pools_of(self, node_id: NodeId, *, is_gone: bool = False) -> frozenset[str]:
        """The pools that a node is in, or was in before it was gone."""
        entry = self._view.get(node_id)
        if entry is None or not (entry.is_online or is_gone):
            return frozenset()
        return frozenset(group.pool.name for group in entry.profile.groups if group.is_planned or is_gone)

    async def _audit(self) -> None:
        """Compare one pool with what is on the store, twice, so that what is on its way is not taken for a mistake."""
        names = [record.name for record in self._plan or ()]
        if not self._suspects:
            self._audited = next((name for name in names if name > self._audited), names[0] if names else "")
        if not self._audited:
            return
        found = await self._store.pool_members(self._audited)
        strange = frozenset(node_id for node_id in found if self._audited not in self._pools_of(node_id))
        group = self._view.pools.groups.get(self._audited)
        own = [
            node_id
            for profile in (group.profiles.values() if group is not None and group.is_planned else ())
            for node_id, entry in profile.nodes.items()
            if entry.is_online and node_id in self._router.nodes and node_id not in found
        ]
        surely = strange & self._suspects
        self._suspects = strange - surely
        if surely or own:
            change = PoolChange(self._audited, tuple(own), tuple(surely))
            await self._store.publish_pools(None, [change], POOLS_TTL_MS, renew=False)


def _record(pool: Pool) -> PoolRecord:
    return PoolRecord(
        name=pool.name,
        languages=tuple(sorted(pool.languages or ())),
        pairs=tuple(sorted(f"{src}-{tgt}" for src, tgt in pool.pairs or ())),
        target=pool.target,
        services=(*sorted(pool.services), *sorted(pool.service_ids)),
    )


def _by_name(record: PoolRecord) -> str:
    return record.name
