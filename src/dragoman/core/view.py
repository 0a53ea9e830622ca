"""What is known of the fleet right now, in the form in which a choice is made?

The view is kept up step by step: own reservations and releases count at once, everything else when it is heard of.
It only guides: whether a slot is really free is decided by the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Final

from dragoman.core.capability import Need, Service
from dragoman.core.ids import NodeId
from dragoman.core.node import Health, Node, NodeStatus
from dragoman.core.refusal import Reason

LEVELS: Final = 64
"""Steps of load that the index tells apart; nodes with up to this many slots are ordered exactly."""

_VERDICTS_MAX: Final = 1024


class NodeEntry:
    """One node as the view knows it. Changed only by FleetView."""

    __slots__ = ("assigned", "health", "is_overloaded", "level", "load", "marks", "node", "place", "used", "verdicts")

    def __init__(self, node: Node, health: Health) -> None:
        self.node = node
        self.health = health
        self.used = 0
        self.load = 0.0
        """The busiest of its resources, in percent."""
        self.is_overloaded = False
        self.marks: dict[Service | Need, int] = {}
        """What it said it cannot do after all, and until when (ms)."""
        self.assigned = 0
        """When it was last given a job, as a serial number: for turns."""
        self.verdicts: dict[Need, Reason | None] = {}
        self.level = -1
        self.place = -1

    @property
    def rank(self) -> float:
        """Where it stands in an order by load: slots used over slots first, then resources. Lower is better."""
        return self.used / self.node.slots * 1000 + self.load

    def can_never(self, need: Need) -> Reason | None:
        """Why it can never take this need; remembered, because it is asked for each job."""
        try:
            return self.verdicts[need]
        except KeyError:
            if len(self.verdicts) >= _VERDICTS_MAX:
                self.verdicts.clear()
            verdict = self.verdicts[need] = self.node.refuses(need)
            return verdict

    def refuses(self, need: Need, now_ms: int) -> Reason | None:
        """Why it cannot take this need now; None when it can."""
        lasting = self.can_never(need)
        if lasting is not None:
            return lasting
        if self.health.status is not NodeStatus.READY:
            return Reason.NOT_READY
        if self.marks and self.is_marked(need, now_ms):
            return Reason.MODEL_UNAVAILABLE
        if self.is_overloaded:
            return Reason.OVERLOADED
        return Reason.FULL if self.used >= self.node.slots else None

    def is_marked(self, need: Need, now_ms: int) -> bool:
        """Whether it said lately that it cannot do this after all."""
        self.marks = {what: until for what, until in self.marks.items() if until > now_ms}
        return need in self.marks or any(service in self.marks for service in need.services)


class LoadIndex:
    """Nodes that can take a job, by how much of their slots is used; each step costs the same however many they are."""

    __slots__ = ("_levels", "_lowest", "count")

    def __init__(self) -> None:
        self._levels: list[list[NodeEntry]] = [[] for _ in range(LEVELS)]
        self._lowest = LEVELS
        self.count = 0

    def put(self, entry: NodeEntry, level: int) -> None:
        """Enter a node at a level, or move it there; -1 takes it out."""
        if entry.level == level:
            return
        if entry.level >= 0:
            nodes = self._levels[entry.level]
            last = nodes.pop()
            if last is not entry:
                nodes[entry.place] = last
                last.place = entry.place
            self.count -= 1
        entry.level = level
        if level >= 0:
            nodes = self._levels[level]
            entry.place = len(nodes)
            nodes.append(entry)
            self._lowest = min(self._lowest, level)
            self.count += 1

    def ascending(self, rng: Random) -> Iterator[NodeEntry]:
        """All nodes in it, the least loaded level first, each level from a random start."""
        while self._lowest < LEVELS and not self._levels[self._lowest]:
            self._lowest += 1
        for level in range(self._lowest, LEVELS):
            nodes = self._levels[level]
            if not nodes:
                continue
            start = int(rng.random() * len(nodes))
            yield from nodes[start:]
            yield from nodes[:start]


class Pool:
    """Nodes among which a choice is made, and those of them that can take a job now."""

    __slots__ = ("free", "members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[NodeId, NodeEntry] = {}
        self.free = LoadIndex()


class FleetView:
    """Every node known, with what it is believed to run."""

    def __init__(self) -> None:
        self.everyone = Pool("all")
        self._serial = 0

    def get(self, node_id: NodeId) -> NodeEntry | None:
        """The entry of a node, if it is known."""
        return self.everyone.members.get(node_id)

    def __iter__(self) -> Iterator[NodeEntry]:
        return iter(self.everyone.members.values())

    def __len__(self) -> int:
        return len(self.everyone.members)

    def put(self, node: Node, health: Health) -> NodeEntry:
        """Enter a node, or what it now says of itself. What it is believed to run stays."""
        entry = self.get(node.id)
        if entry is None:
            entry = self.everyone.members[node.id] = NodeEntry(node, health)
        elif entry.node != node:
            entry.node = node
            entry.verdicts.clear()
        entry.health = health
        self._place(entry)
        return entry

    def drop(self, node_id: NodeId) -> None:
        """Forget a node."""
        entry = self.everyone.members.pop(node_id, None)
        if entry is not None:
            self.everyone.free.put(entry, -1)

    def set_health(self, entry: NodeEntry, health: Health) -> None:
        """Note how a node is doing."""
        entry.health = health
        self._place(entry)

    def set_load(self, entry: NodeEntry, load: float, *, is_overloaded: bool) -> None:
        """Note how busy a node's machine is (percent of its busiest resource)."""
        entry.load = load
        entry.is_overloaded = is_overloaded
        self._place(entry)

    def set_used(self, node_id: NodeId, used: int) -> None:
        """Note how many slots of a node are taken, as the store says."""
        entry = self.get(node_id)
        if entry is not None:
            entry.used = max(used, 0)
            self._place(entry)

    def take(self, node_id: NodeId, used: int) -> None:
        """A slot was reserved for a job of ours: `used` are taken now."""
        entry = self.get(node_id)
        if entry is not None:
            self._serial += 1
            entry.assigned = self._serial
            entry.used = used
            self._place(entry)

    def give_back(self, node_id: NodeId) -> None:
        """A slot of a node was released."""
        entry = self.get(node_id)
        if entry is not None and entry.used > 0:
            entry.used -= 1
            self._place(entry)

    def mark(self, entry: NodeEntry, what: Service | Need, until_ms: int) -> None:
        """The node cannot do this until then."""
        entry.marks[what] = until_ms

    def _place(self, entry: NodeEntry) -> None:
        slots = entry.node.slots
        can_take = entry.used < slots and entry.health.status is NodeStatus.READY and not entry.is_overloaded
        self.everyone.free.put(entry, entry.used * LEVELS // slots if can_take else -1)
