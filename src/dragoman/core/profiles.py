"""What is one node to a choice, and which nodes can do the same?

Fleets have many nodes and few kinds of them. Nodes that can do the same make one profile; whether they can serve a
need is found out once for all of them, and each profile keeps its free nodes by load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from dragoman.core.capability import Languages, Need, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.job import Candidate
from dragoman.core.node import Health, Node
from dragoman.core.refusal import Reason

if TYPE_CHECKING:
    from dragoman.core.pool_index import PoolGroup

LEVELS: Final = 64
"""Steps of load that the index tells apart; nodes with up to this many slots are ordered exactly."""

_NEEDS_MAX: Final = 4096

ProfileKey: TypeAlias = tuple[frozenset[Service], Languages, TenantId | None, bool, frozenset[str]]
"""What decides which needs and pools a node is for; the last are the service ids that pools ask for."""


class NodeEntry:
    """One node as the view knows it. Changed only by FleetView."""

    __slots__ = (
        "assigned",
        "busy_slots",
        "candidate",
        "free_slots",
        "health",
        "is_online",
        "is_overloaded",
        "level",
        "load",
        "marks",
        "node",
        "place",
        "profile",
        "rank",
        "slots",
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
        self.is_online = False
        self.slots = self.busy_slots = self.free_slots = 0
        """As they are counted in its profile: none while it is not connected, none free while it can take nothing."""

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

    __slots__ = ("_levels", "_taken", "count")

    def __init__(self) -> None:
        self._levels: list[list[NodeEntry]] = [[] for _ in range(LEVELS)]
        self._taken = 0
        """One bit for each level that has nodes."""
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
            elif not nodes:
                self._taken ^= 1 << entry.level
            self.count -= 1
        entry.level = level
        if level >= 0:
            nodes = self._levels[level]
            entry.place = len(nodes)
            nodes.append(entry)
            self._taken |= 1 << level
            self.count += 1

    def lowest(self, limit: int, rng: Random) -> list[NodeEntry]:
        """Up to `limit` nodes, the least loaded level first; each level is entered at random."""
        found: list[NodeEntry] = []
        taken = self._taken
        while taken and len(found) < limit:
            low = taken & -taken
            taken ^= low
            found += _window(self._levels[low.bit_length() - 1], limit - len(found), rng)
        return found

    def sample(self, size: int, limit: int, rng: Random) -> list[NodeEntry]:
        """Draw `size` nodes by lot and show the least loaded of these: their lowest level, and more up to `limit`.

        The lots are drawn in order, from the least loaded on (each from the distribution of the lowest of those that
        are left, Devroye, Non-Uniform Random Variate Generation, V.3.1), so those not shown are not drawn at all.
        """
        found: list[NodeEntry] = []
        count, draws, taken = self.count, min(size, self.count), self._taken
        end, lot = 0, count * (1 - rng.random() ** (1 / draws)) if draws else 0.0
        while draws and len(found) < limit:
            low = taken & -taken
            taken ^= low
            nodes = self._levels[low.bit_length() - 1]
            end += len(nodes)
            wanted = min(draws, limit - len(found)) if found else draws
            hits = wanted if end == count else 0
            while lot < end and hits < wanted:
                hits += 1
                if hits < draws:
                    lot += (count - lot) * (1 - rng.random() ** (1 / (draws - hits)))
            if hits:
                found += _window(nodes, hits, rng)
                draws -= hits
        return found

    def level_size(self, level: int) -> int:
        """How many nodes are at a level."""
        return len(self._levels[level])

    def ascending(self, rng: Random) -> Iterator[NodeEntry]:
        """All nodes in it, the least loaded level first, each level from a random start."""
        for level in range(LEVELS):
            nodes = self._levels[level]
            if not nodes:
                continue
            start = int(rng.random() * len(nodes))
            yield from nodes[start:]
            yield from nodes[:start]


def _window(nodes: list[NodeEntry], width: int, rng: Random) -> list[NodeEntry]:
    """So many of some nodes, from a random one on."""
    start = int(rng.random() * len(nodes))
    found = nodes[start : start + width]
    if len(found) < width:
        found += nodes[: min(start, width - len(found))]
    return found


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

    __slots__ = (
        "busy_slots",
        "example",
        "free",
        "free_slots",
        "full",
        "groups",
        "key",
        "nodes",
        "online",
        "permits",
        "slots",
        "standings",
        "verdicts",
    )

    def __init__(self, key: ProfileKey, example: Node) -> None:
        self.key = key
        self.example = example
        """One of them: what it refuses, all refuse."""
        self.nodes: dict[NodeId, NodeEntry] = {}
        self.online = 0
        """How many of them are connected."""
        self.slots = self.busy_slots = self.free_slots = 0
        """Of those that are connected; free are only the slots that can be given now."""
        self.groups: tuple[PoolGroup, ...] = ()
        """The pools that its nodes belong to."""
        self.permits: Callable[[Need, Profile], bool] | None = None
        """Whether the pools let its nodes serve a need; None where pools forbid nothing."""
        self.free = LoadIndex()
        self.full = FullNodes()
        self.standings: Counter[Reason | None] = Counter()
        """How many of them can take nothing now, by reason, and (None) how many can."""
        self.verdicts: dict[Need, Reason | None] = {}

    def can_never(self, need: Need) -> Reason | None:
        """Why none of them can ever take this need; None when they can."""
        reason = self.cannot_serve(need)
        if reason is None and self.permits is not None and not self.permits(need, self):
            return Reason.OUTSIDE_POOLS
        return reason

    def cannot_serve(self, need: Need) -> Reason | None:
        """The same, whatever pools say; remembered, because it is asked again and again."""
        try:
            return self.verdicts[need]
        except KeyError:
            if len(self.verdicts) >= _NEEDS_MAX:
                self.verdicts.clear()
            verdict = self.verdicts[need] = self.example.refuses(need, is_named=False)
            return verdict
