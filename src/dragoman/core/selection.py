"""Which nodes are worth trying for a job, and in which order?

First a pool is chosen among those that are for the job, then nodes in it. One short ranking is drawn from the nodes
believed free and handed to the store, which takes the first that really is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from operator import attrgetter, itemgetter
from random import Random
from typing import Final, TypeAlias

from msgspec import Struct

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId
from dragoman.core.job import Candidate
from dragoman.core.pool_index import Arm, Route
from dragoman.core.pools import OUTSIDE
from dragoman.core.profiles import NodeEntry, Profile
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.view import FleetView

RANKING_MAX: Final = 4
"""Nodes in a ranking: enough that one of them is free when the view is a little old, few enough for one store call."""
RANKING_SHARED_MAX: Final = 6
"""Where other instances give the same nodes jobs, the view is older."""

_COMPARED_MIN: Final = 2

_by_load = attrgetter("rank")
_by_turn = attrgetter("assigned")
_by_lot = itemgetter(0)


class Strategy(StrEnum):
    """How nodes that could all take a job are ordered."""

    LEAST_CONNECTIONS = "least_connections"
    RANDOM = "random"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPolicy:
    """What the operator wants of the choice."""

    strategy: Strategy = Strategy.LEAST_CONNECTIONS
    ranking_max: int = RANKING_MAX
    doubts_full: bool = False
    """Whether a node that is believed full may have a free slot by now: others fill and free it too."""
    sample_size: int | None = None
    """How many free nodes of a pool are compared, drawn by lot; None: all."""
    fresh_ms: int = 0
    """How old a picture of the others' nodes may be and still be trusted in full; 0: nobody else gives them jobs."""


class Fallback(StrEnum):
    """Why a job did not get its node from the pool chosen for it."""

    POOL_FULL = "pool_full"
    """Another pool that is for it had one."""
    POOLS_FULL = "pools_full"
    """Only outside its pools there was one."""
    NO_POOL = "no_pool"
    """There is no pool for it."""


class Affinity(Struct, frozen=True):
    """What a job should keep to."""

    key: str
    """Jobs of one key go to one pool."""
    node_id: NodeId | None = None
    """The node that had the session's last job."""


Watch: TypeAlias = Callable[[str, list[NodeEntry]], None]
"""Is told the nodes drawn from a pool, the best first."""


class Ranking(Struct, frozen=True):
    """Nodes to try, the best first; never empty."""

    candidates: tuple[Candidate, ...]
    pool: str = OUTSIDE
    """Where the first of them is from."""
    fallback: Fallback | None = None
    """Why it is not from the pool that was chosen first; None when it is."""


def rank_nodes(
    need: Need,
    view: FleetView,
    policy: SelectionPolicy,
    rng: Random,
    *,
    now_ms: int,
    tried: Collection[NodeId] = (),
    spread_from: NodeId | None = None,
    doubts_full: bool = False,
    affinity: Affinity | None = None,
    watch: Watch | None = None,
) -> Ranking | Refusal:
    """Rank the nodes that can take the need now.

    The node that the need prefers comes first when it can. Nodes in `tried` are left out. `spread_from` comes last.
    With `doubts_full` the ranking is filled up with nodes believed full, by lot: on an old picture every node is full
    sooner or later, and stays so until somebody looks.
    `watch` is told the nodes that were drawn, pool by pool.
    With `affinity` the pool is that of its key, and its node comes first while it is in that pool and can.
    """
    route = view.route(need)
    draw = _Draw(need, view, policy, rng, now_ms, tried, watch)
    # One more than a ranking holds: the node to be spread from goes last and leaves a full ranking.
    draw.limit = policy.ranking_max + (spread_from is not None)
    arm = choose_pool(route, rng, affinity)
    found = draw.of(arm) if arm is not None else []
    fallback = None if arm is not None else Fallback.NO_POOL
    if len(found) < policy.ranking_max and (len(route.arms) > 1 or route.outside.profiles):
        arm, fallback = _fill(found, draw, route, arm, fallback)
    if doubts_full and len(found) < policy.ranking_max:
        found += draw.believed_full(route, policy.ranking_max - len(found))
    if spread_from is not None and len(found) > 1:
        found.sort(key=lambda entry: entry.node.id == spread_from)
    if affinity is not None and affinity.node_id is not None and arm is not None:
        _put_first(found, draw, affinity.node_id, arm)
    if need.preferred is not None:
        _put_first(found, draw, need.preferred, None)
    if not found:
        route.recount()
        return count_refusals(need, view, now_ms=now_ms, tried=tried)
    pool = OUTSIDE if arm is None else arm.name
    return Ranking(tuple([entry.candidate for entry in found[: policy.ranking_max]]), pool, fallback)


def choose_pool(route: Route, rng: Random, affinity: Affinity | None) -> Arm | None:
    """The pool that a job is to go to: its tenant's, else its key's, else one by lot. None: there is none for it."""
    if route.override is not None:
        return route.override
    if affinity is not None:
        return route.hashed(affinity.key)
    return route.weighted(rng)


def compared(policy: SelectionPolicy, view: FleetView, now_ms: int) -> int | None:
    """How many free nodes are compared; None: all.

    The older the picture of what others do, the fewer: on an old picture the least loaded node is everybody's choice,
    and no longer the least loaded (Mitzenmacher, How Useful Is Old Information?, 2000). At least 2.
    """
    size = policy.sample_size
    if size is None or not policy.fresh_ms or size <= _COMPARED_MIN:
        return size
    age = max(now_ms - view.heard_ms - policy.fresh_ms, 0) / policy.fresh_ms
    return max(_COMPARED_MIN, int(size / (1 + age)))


def count_refusals(need: Need, view: FleetView, *, now_ms: int, tried: Collection[NodeId] = ()) -> Refusal:
    """Say for how many nodes each reason holds."""
    counts: Counter[Reason | None] = Counter()
    for profile in view.profiles.values():
        lasting = profile.can_never(need)
        if lasting is None:
            counts.update(profile.standings)
        else:
            counts[lasting] += len(profile.nodes)
    singled_out = {*tried, *view.marked}
    if need.preferred is not None:
        singled_out.add(need.preferred)
    for node_id in singled_out:
        _recount(counts, need, view, now_ms, node_id, has_failed=node_id in tried)
    return Refusal(counts={reason: count for reason, count in counts.items() if reason is not None and count > 0})


def _recount(
    counts: Counter[Reason | None], need: Need, view: FleetView, now_ms: int, node_id: NodeId, *, has_failed: bool
) -> None:
    """Count a node by itself that was counted with its profile."""
    entry = view.get(node_id)
    if entry is None:
        return
    lasting = entry.profile.can_never(need)
    counts[entry.standing if lasting is None else lasting] -= 1
    is_able = entry.can_never(need) is None
    counts[Reason.ALREADY_TRIED if has_failed and is_able else entry.refuses(need, now_ms)] += 1


def _fill(
    found: list[NodeEntry], draw: _Draw, route: Route, chosen: Arm | None, fallback: Fallback | None
) -> tuple[Arm | None, Fallback | None]:
    """Fill up a ranking from the other pools, from a random one on, then from outside if that is allowed.

    Answers where the first node is from, and why it is not from the pool that was chosen.
    """
    arms, wanted = route.arms, draw.policy.ranking_max
    first = chosen
    start = int(draw.rng.random() * len(arms))
    seen: set[NodeId] = set()
    for arm in (*arms[start:], *arms[:start]) if len(arms) > 1 else ():
        if len(found) >= wanted:
            break
        if arm is chosen or not arm.free_nodes():
            continue
        if not found:
            first, fallback = arm, Fallback.POOL_FULL
            route.recount()
        seen = seen or {entry.node.id for entry in found}
        found += [entry for entry in draw.of(arm) if entry.node.id not in seen]
        seen.update(entry.node.id for entry in found)
    if route.is_open and len(found) < wanted and route.outside.free_nodes():
        if not found:
            first = route.outside
            fallback = Fallback.POOLS_FULL if arms else Fallback.NO_POOL
        found += draw.of(route.outside)
    return first, fallback


def _put_first(found: list[NodeEntry], draw: _Draw, node_id: NodeId, arm: Arm | None) -> None:
    """Put a node first if it can take the job, and is in that pool."""
    entry = draw.view.get(node_id)
    if entry is None or node_id in draw.tried or entry.refuses(draw.need, draw.now_ms) is not None:
        return
    if arm is None or any(profile is entry.profile for profile in arm.profiles):
        found[:] = [entry, *(other for other in found if other is not entry)]


class _Draw:
    """One choice: who is asked for, and by which rules."""

    __slots__ = ("limit", "need", "now_ms", "policy", "rng", "tried", "unfit", "view", "watch")

    def __init__(
        self,
        need: Need,
        view: FleetView,
        policy: SelectionPolicy,
        rng: Random,
        now_ms: int,
        tried: Collection[NodeId],
        watch: Watch | None,
    ) -> None:
        self.watch = watch
        self.limit = policy.ranking_max
        self.unfit: list[NodeEntry] = []
        """Drawn, and passed over for what they failed at or lack; kept only for who watches."""
        self.need = need
        self.view = view
        self.policy = policy
        self.rng = rng
        self.now_ms = now_ms
        self.tried = tried

    def of(self, arm: Arm) -> list[NodeEntry]:
        """Free nodes of a pool, the best first."""
        policy, profiles = self.policy, arm.profiles
        size = compared(policy, self.view, self.now_ms)
        match policy.strategy:
            case Strategy.LEAST_CONNECTIONS:
                limit = self.limit if self.watch is None else max(self.limit, size or 0)
                found = self._sample(profiles, size, limit) or self._least_loaded(profiles, limit)
                found.sort(key=_by_load)
            case Strategy.RANDOM:
                found = self._sample(profiles, size, None) or self._all_free(profiles)
                self.rng.shuffle(found)
            case Strategy.ROUND_ROBIN:
                found = self._sample(profiles, size, None) or self._all_free(profiles)
                found.sort(key=_by_turn)
        if self.watch is not None:
            self.watch(arm.name, [*found, *self.unfit])
            self.unfit = []
        return found

    def believed_full(self, route: Route, limit: int) -> list[NodeEntry]:
        """Up to so many nodes that are believed full, by lot."""
        reached = [profile for arm in route.arms for profile in arm.profiles]
        if route.is_open:
            reached += route.outside.profiles
        found = [
            entry
            for profile in dict.fromkeys(reached)
            for entry in profile.full.some(limit, self.rng)
            if self._is_fit(entry)
        ]
        self.rng.shuffle(found)
        return found[:limit]

    def _sample(self, profiles: tuple[Profile, ...], size: int | None, limit: int | None) -> list[NodeEntry]:
        """Nodes drawn by lot, each free one as likely; of these the least loaded, as many as asked for.

        None at all when there are so few that all are compared, or when none of those drawn will do.
        """
        if size is None:
            return []
        if len(profiles) == 1:
            free = profiles[0].free
            found = free.sample(size, limit or size, self.rng) if free.count > size else []
        else:
            counts = [profile.free.count for profile in profiles]
            if sum(counts) <= size:
                return []
            drawn = Counter(self.rng.choices(profiles, counts, k=size))
            found = [
                entry for profile, hits in drawn.items() for entry in profile.free.sample(hits, limit or hits, self.rng)
            ]
            self.rng.shuffle(found)
        if self.tried or self.view.marked:
            if self.watch is not None:
                self.unfit = [entry for entry in found if not self._is_fit(entry)]
            return [entry for entry in found if self._is_fit(entry)]
        return found

    def _least_loaded(self, profiles: tuple[Profile, ...], limit: int) -> list[NodeEntry]:
        lots: list[tuple[float, NodeEntry]] = []
        for profile in profiles:
            if self.tried or self.view.marked:
                fit = (entry for entry in profile.free.ascending(self.rng) if self._is_fit(entry))
                drawn = list(islice(fit, limit))
            else:
                drawn = profile.free.lowest(limit, self.rng)
            if len(profiles) == 1:
                return drawn
            if drawn:
                lots += _cast_lots(drawn, profile.free.level_size(drawn[0].level), self.rng)
        # Sorting by load keeps the order of equals: among them it goes by lot.
        lots.sort(key=_by_lot)
        return [entry for _, entry in lots]

    def _all_free(self, profiles: tuple[Profile, ...]) -> list[NodeEntry]:
        return [entry for profile in profiles for entry in profile.free.ascending(self.rng) if self._is_fit(entry)]

    def _is_fit(self, entry: NodeEntry) -> bool:
        return entry.node.id not in self.tried and not (entry.marks and entry.is_marked(self.need, self.now_ms))


def _cast_lots(drawn: list[NodeEntry], level_size: int, rng: Random) -> list[tuple[float, NodeEntry]]:
    """Give each node a lot, the lowest first, as if every node of its level had one and these had the lowest.

    So a node of a small profile is first as often as one of a large profile: the highest of n uniform numbers is
    distributed like the n-th root of one, and the next are about 1/n apart.
    """
    lot = rng.random() ** (1 / level_size)
    return [(place / level_size - lot, entry) for place, entry in enumerate(drawn)]
