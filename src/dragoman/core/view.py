"""What is known of the fleet right now, in the form in which a choice is made?

The view is kept up step by step: own reservations and releases count at once, everything else when it is heard of.
It only guides: whether a slot is really free is decided by the store.

Fleets have many nodes and few kinds of them. Nodes that can do the same make one profile; whether they can serve a
need is found out once for all of them, and each profile keeps its free nodes by load. So a choice costs the same
however many nodes there are, and a change costs its own node only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from dragoman.core.capability import Need, Service
from dragoman.core.ids import NodeId
from dragoman.core.job import Candidate
from dragoman.core.node import Health, Node, NodeStatus
from dragoman.core.pool_index import PoolIndex, Route
from dragoman.core.pools import OUTSIDE, PoolPolicy
from dragoman.core.profiles import LEVELS, NodeEntry, Profile, ProfileKey
from dragoman.core.refusal import Reason

_NEEDS_MAX: Final = 4096
_RANK_OF_SLOTS: Final = 1_000_000
"""So much that one slot of thousands counts for more than the whole range of a machine's load."""
_RANK_OF_AGE: Final = 1e-12
"""So little that a heartbeat's age tells apart only machines equally loaded."""
_NO_POOLS: Final = PoolPolicy()


class FleetView:
    """Every node known, with what it is believed to run."""

    def __init__(self, policy: PoolPolicy = _NO_POOLS) -> None:
        self.pools = PoolIndex(policy, self.serving)
        self._service_ids = policy.service_ids
        self._entries: dict[NodeId, NodeEntry] = {}
        self.profiles: dict[ProfileKey, Profile] = {}
        self._serving: dict[Need, list[Profile]] = {}
        self._serial = 0
        self.marked: set[NodeId] = set()
        """Nodes with a mark that may still be good."""
        self.touched: set[NodeId] = set()
        """Nodes that may be more or less busy than when somebody last looked; whoever looks takes the set."""
        self.joined: set[NodeId] = set()
        """Nodes that may belong to other pools than when somebody last looked; whoever looks takes the set."""
        self.heard_ms = 0
        """When others last told how busy their nodes are."""

    def get(self, node_id: NodeId) -> NodeEntry | None:
        """The entry of a node, if it is known."""
        return self._entries.get(node_id)

    def __iter__(self) -> Iterator[NodeEntry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def serving(self, need: Need) -> list[Profile]:
        """The profiles whose nodes can serve a need, whatever pools say."""
        profiles = self._serving.get(need)
        if profiles is None:
            if len(self._serving) >= _NEEDS_MAX:
                self._serving.clear()
            profiles = [profile for profile in self.profiles.values() if profile.cannot_serve(need) is None]
            self._serving[need] = profiles
        return profiles

    def route(self, need: Need) -> Route:
        """The pools that a need may go to."""
        return self.pools.route(need)

    def put(self, node: Node, health: Health) -> NodeEntry:
        """Enter a node, or what it now says of itself. What it is believed to run stays."""
        entry = self._entries.get(node.id)
        if entry is None:
            entry = self._entries[node.id] = NodeEntry(node, health, self._profile(node))
            self._join(entry)
        elif entry.node != node:
            before, after = entry.profile, self._profile(node)
            if after is not before:
                self._leave(entry)
                entry.profile = after
            entry.node = node
            entry.candidate = Candidate(node.id, node.slots)
            if after is not before:
                self._join(entry)
                self._drop_empty(before)
        entry.health = health
        self._place(entry)
        return entry

    def drop(self, node_id: NodeId) -> None:
        """Forget a node."""
        entry = self._entries.pop(node_id, None)
        if entry is not None:
            self._leave(entry)
            self._drop_empty(entry.profile)
            self.marked.discard(node_id)

    def count_slots(self) -> dict[tuple[str, str], int]:
        """Slots by pool and state. A node of several pools is counted in each."""
        counts: dict[tuple[str, str], int] = {}
        pools = [(group.pool.name, tuple(group.profiles.values())) for group in self.pools.planned()]
        outside = tuple(
            profile for profile in self.profiles.values() if not any(group.is_planned for group in profile.groups)
        )
        for name, profiles in (*pools, (OUTSIDE, outside)):
            slots = sum(profile.slots for profile in profiles)
            busy = sum(profile.busy_slots for profile in profiles)
            free = sum(profile.free_slots for profile in profiles)
            if slots or name != OUTSIDE:
                counts |= {(name, "used"): busy, (name, "free"): free, (name, "withheld"): slots - busy - free}
        return counts

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

    def correct(self, counts: Iterable[tuple[NodeId, int]]) -> None:
        """Note how many slots of some nodes are taken, as the store says."""
        for node_id, used in counts:
            self.set_used(node_id, used)

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
        self._count(entry, profile)
        if standing is None:
            entry.rank = used / slots * _RANK_OF_SLOTS + entry.load - entry.health.heartbeat_ms * _RANK_OF_AGE
            profile.full.discard(entry)
            profile.free.put(entry, used * LEVELS // slots)
        else:
            profile.free.put(entry, -1)
            if standing is Reason.FULL:
                profile.full.add(entry)
            else:
                profile.full.discard(entry)

    def _count(self, entry: NodeEntry, profile: Profile) -> None:
        """Count a node's slots in its profile, as they are now."""
        is_online = entry.health.status is not NodeStatus.OFFLINE
        slots = entry.node.slots if is_online else 0
        busy = entry.used if entry.used < slots else slots
        free = slots - busy if entry.standing is None else 0
        if busy != entry.busy_slots:
            profile.busy_slots += busy - entry.busy_slots
            entry.busy_slots = busy
        if free != entry.free_slots:
            profile.free_slots += free - entry.free_slots
            entry.free_slots = free
        if slots != entry.slots:
            profile.slots += slots - entry.slots
            entry.slots = slots
        if is_online is not entry.is_online:
            entry.is_online = is_online
            self._count_online(entry, 1 if is_online else -1)

    def _count_online(self, entry: NodeEntry, step: int) -> None:
        entry.profile.online += step
        if self.pools.policy.is_on:
            self.joined.add(entry.node.id)
        self.pools.count(entry.profile, step)

    def _profile(self, node: Node) -> Profile:
        ids = self._service_ids
        named = frozenset(name for name, _ in node.service_ids if name in ids) if ids else ids
        key: ProfileKey = (node.services, node.languages, node.tenant, node.accepts_public, named)
        profile = self.profiles.get(key)
        if profile is None:
            profile = self.profiles[key] = Profile(key, node)
            self._serving.clear()
            self.pools.enter(profile)
        return profile

    def _join(self, entry: NodeEntry) -> None:
        entry.profile.nodes[entry.node.id] = entry
        entry.profile.standings[entry.standing] += 1

    def _leave(self, entry: NodeEntry) -> None:
        profile = entry.profile
        profile.free.put(entry, -1)
        profile.full.discard(entry)
        profile.standings[entry.standing] -= 1
        del profile.nodes[entry.node.id]
        profile.slots -= entry.slots
        profile.busy_slots -= entry.busy_slots
        profile.free_slots -= entry.free_slots
        entry.slots = entry.busy_slots = entry.free_slots = 0
        if entry.is_online:
            entry.is_online = False
            self._count_online(entry, -1)

    def _drop_empty(self, profile: Profile) -> None:
        if not profile.nodes and self.profiles.pop(profile.key, None) is not None:
            self._serving.clear()
            self.pools.leave(profile)
