"""What is known of the fleet right now, in the form in which a choice is made?

The view is kept up step by step: own reservations and releases count at once, everything else when it is heard of.
It only guides: whether a slot is really free is decided by the store.

Fleets have many nodes and few kinds of them. Nodes that can do the same make one profile; whether they can serve a
need is found out once for all of them, and each profile keeps its free nodes by load. So a choice costs the same
however many nodes there are, and a change costs its own node only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Final, TypeAlias

from dragoman.core.capability import Languages, Need, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.job import Candidate
from dragoman.core.node import Health, Node, NodeStatus
from dragoman.core.refusal import Reason

LEVELS: Final = 64
"""Steps of load that the index tells apart; nodes with up to this many slots are ordered exactly."""

_NEEDS_MAX: Final = 4096
_RANK_OF_SLOTS: Final = 1_000_000
"""So much that one slot of thousands counts for more than the whole range of a machine's load."""

ProfileKey: TypeAlias = tuple[frozenset[Service], Languages, TenantId | None, bool]


class NodeEntry:
    """One node as the view knows it. Changed only by FleetView."""

    __slots__ = (
        "assigned",
        "candidate",
        "health",
        "is_overloaded",
        "level",
        "load",
        "marks",
        "node",
        "place",
        "profile",
        "rank",
        "standing",
        "used",
    )

    def __init__(self, node: Node, health: Health, profile: Profile) -> None:
        self.node = node
        self.candidate = Candidate(node.id, node.slots)
        self.health = health
        self.profile = profile
        self.used = 0
        self.load = 0.0
        """The busiest of its resources, in percent."""
        self.is_overloaded = False
        self.marks: dict[Service | Need, int] = {}
        """What it said it cannot do after all, and until when (ms)."""
        self.assigned = 0
        """When it was last given a job, as a serial number: for turns."""
        self.standing: Reason | None = Reason.NOT_READY
        """Why it can take nothing at all now; None when it can."""
        self.rank = 0.0
        """Where it stands in an order by load: slots used over slots first, then resources. Lower is better."""
        self.level = -1
        self.place = -1

    def can_never(self, need: Need) -> Reason | None:
        """Why it can never take this need; None when it can."""
        reason = self.profile.can_never(need)
        if reason is Reason.TENANT and need.preferred == self.node.id:
            return self.node.refuses(need, is_named=True)
        return reason

    def refuses(self, need: Need, now_ms: int) -> Reason | None:
        """Why it cannot take this need now; None when it can."""
        lasting = self.can_never(need)
        if lasting is not None:
            return lasting
        if self.standing is Reason.NOT_READY:
            return Reason.NOT_READY
        if self.marks and self.is_marked(need, now_ms):
            return Reason.MODEL_UNAVAILABLE
        return self.standing

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

    def lowest(self, limit: int, rng: Random) -> list[NodeEntry]:
        """Up to `limit` nodes, the least loaded level first; each level is entered at random."""
        if not self.count:
            return []
        levels = self._levels
        while not levels[self._lowest]:
            self._lowest += 1
        nodes = levels[self._lowest]
        start = int(rng.random() * len(nodes))
        found = nodes[start : start + limit]
        if len(found) == limit:
            return found
        found += nodes[: min(start, limit - len(found))]
        level, wanted = self._lowest, min(limit, self.count)
        while len(found) < wanted:
            level += 1
            nodes = levels[level]
            if nodes:
                start = int(rng.random() * len(nodes))
                found += nodes[start : start + wanted - len(found)]
                found += nodes[: min(start, wanted - len(found))]
        return found

    def level_size(self, level: int) -> int:
        """How many nodes are at a level."""
        return len(self._levels[level])

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


class FullNodes:
    """Nodes of which nothing but a free slot is missing, as far as is known."""

    __slots__ = ("_nodes", "_places")

    def __init__(self) -> None:
        self._nodes: list[NodeEntry] = []
        self._places: dict[NodeId, int] = {}

    def add(self, entry: NodeEntry) -> None:
        """Enter a node."""
        if entry.node.id not in self._places:
            self._places[entry.node.id] = len(self._nodes)
            self._nodes.append(entry)

    def discard(self, entry: NodeEntry) -> None:
        """Take a node out."""
        place = self._places.pop(entry.node.id, None)
        if place is not None:
            last = self._nodes.pop()
            if last is not entry:
                self._nodes[place] = last
                self._places[last.node.id] = place

    def some(self, limit: int, rng: Random) -> list[NodeEntry]:
        """Up to `limit` of them, from a random start."""
        nodes = self._nodes
        if not nodes:
            return []
        start = int(rng.random() * len(nodes))
        return (nodes[start : start + limit] + nodes[: min(start, limit)])[:limit]


class Profile:
    """Nodes that can do the same, for the same tenants."""

    __slots__ = ("example", "free", "full", "key", "size", "standings", "verdicts")

    def __init__(self, key: ProfileKey, example: Node) -> None:
        self.key = key
        self.example = example
        """One of them: what it refuses, all refuse."""
        self.size = 0
        self.free = LoadIndex()
        self.full = FullNodes()
        self.standings: Counter[Reason | None] = Counter()
        """How many of them can take nothing now, by reason, and (None) how many can."""
        self.verdicts: dict[Need, Reason | None] = {}

    def can_never(self, need: Need) -> Reason | None:
        """Why none of them can ever take this need; remembered, because it is asked again and again."""
        try:
            return self.verdicts[need]
        except KeyError:
            if len(self.verdicts) >= _NEEDS_MAX:
                self.verdicts.clear()
            verdict = self.verdicts[need] = self.example.refuses(need, is_named=False)
            return verdict


class FleetView:
    """Every node known, with what it is believed to run."""

    def __init__(self) -> None:
        self._entries: dict[NodeId, NodeEntry] = {}
        self.profiles: dict[ProfileKey, Profile] = {}
        self._serving: dict[Need, list[Profile]] = {}
        self._serial = 0
        self.marked: set[NodeId] = set()
        """Nodes with a mark that may still be good."""
        self.touched: set[NodeId] = set()
        """Nodes that may be more or less busy than when somebody last looked; whoever looks takes the set."""

    def get(self, node_id: NodeId) -> NodeEntry | None:
        """The entry of a node, if it is known."""
        return self._entries.get(node_id)

    def __iter__(self) -> Iterator[NodeEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def serving(self, need: Need) -> list[Profile]:
        """The profiles whose nodes can serve a need."""
        profiles = self._serving.get(need)
        if profiles is None:
            if len(self._serving) >= _NEEDS_MAX:
                self._serving.clear()
            profiles = [profile for profile in self.profiles.values() if profile.can_never(need) is None]
            self._serving[need] = profiles
        return profiles

    def put(self, node: Node, health: Health) -> NodeEntry:
        """Enter a node, or what it now says of itself. What it is believed to run stays."""
        entry = self._entries.get(node.id)
        if entry is None:
            entry = self._entries[node.id] = NodeEntry(node, health, self._join(node))
            entry.profile.standings[entry.standing] += 1
        elif entry.node != node:
            self._leave(entry)
            entry.node = node
            entry.candidate = Candidate(node.id, node.slots)
            entry.profile = self._join(node)
            entry.profile.standings[entry.standing] += 1
        entry.health = health
        self._place(entry)
        return entry

    def drop(self, node_id: NodeId) -> None:
        """Forget a node."""
        entry = self._entries.pop(node_id, None)
        if entry is not None:
            self._leave(entry)
            self.marked.discard(node_id)

    def set_health(self, entry: NodeEntry, health: Health) -> None:
        """Note how a node is doing."""
        entry.health = health
        self._place(entry)

    def set_load(self, entry: NodeEntry, load: float, *, is_overloaded: bool) -> None:
        """Note how busy a node's machine is (percent of its busiest resource)."""
        if entry.load != load or entry.is_overloaded is not is_overloaded:
            self.touched.add(entry.node.id)
        entry.load = load
        entry.is_overloaded = is_overloaded
        self._place(entry)

    def set_used(self, node_id: NodeId, used: int) -> None:
        """Note how many slots of a node are taken, as the store says."""
        entry = self.get(node_id)
        if entry is not None:
            entry.used = max(used, 0)
            self.touched.add(node_id)
            self._place(entry)

    def take(self, node_id: NodeId, used: int) -> None:
        """A slot was reserved for a job of ours: `used` are taken now."""
        entry = self.get(node_id)
        if entry is not None:
            self._serial += 1
            entry.assigned = self._serial
            entry.used = used
            self.touched.add(node_id)
            self._place(entry)

    def give_back(self, node_id: NodeId) -> None:
        """A slot of a node was released."""
        entry = self.get(node_id)
        if entry is not None and entry.used > 0:
            entry.used -= 1
            self.touched.add(node_id)
            self._place(entry)

    def add_used(self, node_id: NodeId) -> None:
        """Another instance has given a node a job."""
        entry = self.get(node_id)
        if entry is not None:
            entry.used += 1
            self.touched.add(node_id)
            self._place(entry)

    def mark(self, entry: NodeEntry, what: Service | Need, until_ms: int) -> None:
        """The node cannot do this until then."""
        entry.marks[what] = until_ms
        self.marked.add(entry.node.id)

    def expire_marks(self, now_ms: int) -> None:
        """Forget marks whose time has passed."""
        for node_id in tuple(self.marked):
            entry = self._entries[node_id]
            entry.marks = {what: until for what, until in entry.marks.items() if until > now_ms}
            if not entry.marks:
                self.marked.discard(node_id)

    def _place(self, entry: NodeEntry) -> None:
        used, slots = entry.used, entry.node.slots
        standing: Reason | None = None
        if entry.health.status is not NodeStatus.READY:
            standing = Reason.NOT_READY
        elif entry.is_overloaded:
            standing = Reason.OVERLOADED
        elif used >= slots:
            standing = Reason.FULL
        profile = entry.profile
        if standing is not entry.standing:
            profile.standings[entry.standing] -= 1
            profile.standings[standing] += 1
            entry.standing = standing
        if standing is None:
            entry.rank = used / slots * _RANK_OF_SLOTS + entry.load
            profile.full.discard(entry)
            profile.free.put(entry, used * LEVELS // slots)
        else:
            profile.free.put(entry, -1)
            if standing is Reason.FULL:
                profile.full.add(entry)
            else:
                profile.full.discard(entry)

    def _join(self, node: Node) -> Profile:
        key = (node.services, node.languages, node.tenant, node.accepts_public)
        profile = self.profiles.get(key)
        if profile is None:
            profile = self.profiles[key] = Profile(key, node)
            self._serving.clear()
        profile.size += 1
        return profile

    def _leave(self, entry: NodeEntry) -> None:
        profile = entry.profile
        profile.free.put(entry, -1)
        profile.full.discard(entry)
        profile.standings[entry.standing] -= 1
        profile.size -= 1
        if not profile.size:
            del self.profiles[profile.key]
            self._serving.clear()
