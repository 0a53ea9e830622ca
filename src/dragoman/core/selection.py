"""Which nodes are worth trying for a job, and in which order?

One short ranking is drawn from the nodes believed free and handed to the store, which takes the first that really is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from operator import attrgetter, itemgetter
from random import Random
from typing import Final

from msgspec import Struct

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId
from dragoman.core.job import Candidate
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.view import FleetView, NodeEntry

RANKING_MAX: Final = 4
"""Nodes in a ranking: enough that one of them is free when the view is a little old, few enough for one store call."""
RANKING_SHARED_MAX: Final = 6
"""Where other instances give the same nodes jobs, the view is older."""

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


class Ranking(Struct, frozen=True):
    """Nodes to try, the best first; never empty."""

    candidates: tuple[Candidate, ...]


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
) -> Ranking | Refusal:
    """Rank the nodes that can take the need now.

    The node that the need prefers comes first when it can. Nodes in `tried` are left out. `spread_from` comes last.
    With `doubts_full` the ranking is filled up with nodes believed full, by lot: on an old picture every node is full
    sooner or later, and stays so until somebody looks.
    """
    found = _draw(need, view, policy, rng, now_ms, tried)
    if doubts_full and len(found) < policy.ranking_max:
        found += _believed_full(need, view, rng, now_ms, tried, policy.ranking_max - len(found))
    if spread_from is not None and len(found) > 1:
        found.sort(key=lambda entry: entry.node.id == spread_from)
    if need.preferred is not None and need.preferred not in tried:
        entry = view.get(need.preferred)
        if entry is not None and entry.refuses(need, now_ms) is None:
            found = [entry, *(other for other in found if other is not entry)]
    if not found:
        return count_refusals(need, view, now_ms=now_ms, tried=tried)
    return Ranking(tuple([entry.candidate for entry in found[: policy.ranking_max]]))


def count_refusals(need: Need, view: FleetView, *, now_ms: int, tried: Collection[NodeId] = ()) -> Refusal:
    """Say for how many nodes each reason holds."""
    counts: Counter[Reason | None] = Counter()
    for profile in view.profiles.values():
        lasting = profile.can_never(need)
        if lasting is None:
            counts.update(profile.standings)
        else:
            counts[lasting] += profile.size
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


def _draw(
    need: Need, view: FleetView, policy: SelectionPolicy, rng: Random, now_ms: int, tried: Collection[NodeId]
) -> list[NodeEntry]:
    match policy.strategy:
        case Strategy.LEAST_CONNECTIONS:
            # One more than a ranking holds: the node to be spread from goes last and leaves a full ranking.
            found = _least_loaded(need, view, rng, now_ms, tried, policy.ranking_max + 1)
            found.sort(key=_by_load)
        case Strategy.RANDOM:
            found = _all_free(need, view, rng, now_ms, tried)
            rng.shuffle(found)
        case Strategy.ROUND_ROBIN:
            found = _all_free(need, view, rng, now_ms, tried)
            found.sort(key=_by_turn)
    return found


def _least_loaded(
    need: Need, view: FleetView, rng: Random, now_ms: int, tried: Collection[NodeId], limit: int
) -> list[NodeEntry]:
    lots: list[tuple[float, NodeEntry]] = []
    profiles = view.serving(need)
    for profile in profiles:
        if tried or view.marked:
            fit = (entry for entry in profile.free.ascending(rng) if _is_fit(entry, need, now_ms, tried))
            drawn = list(islice(fit, limit))
        else:
            drawn = profile.free.lowest(limit, rng)
        if len(profiles) == 1:
            return drawn
        if drawn:
            lots += _cast_lots(drawn, profile.free.level_size(drawn[0].level), rng)
    # Sorting by load keeps the order of equals: among them it goes by lot.
    lots.sort(key=_by_lot)
    return [entry for _, entry in lots]


def _cast_lots(drawn: list[NodeEntry], level_size: int, rng: Random) -> list[tuple[float, NodeEntry]]:
    """Give each node a lot, the lowest first, as if every node of its level had one and these had the lowest.

    So a node of a small profile is first as often as one of a large profile: the highest of n uniform numbers is
    distributed like the n-th root of one, and the next are about 1/n apart.
    """
    lot = rng.random() ** (1 / level_size)
    return [(place / level_size - lot, entry) for place, entry in enumerate(drawn)]


def _believed_full(
    need: Need, view: FleetView, rng: Random, now_ms: int, tried: Collection[NodeId], limit: int
) -> list[NodeEntry]:
    found = [
        entry
        for profile in view.serving(need)
        for entry in profile.full.some(limit, rng)
        if _is_fit(entry, need, now_ms, tried)
    ]
    rng.shuffle(found)
    return found[:limit]


def _all_free(need: Need, view: FleetView, rng: Random, now_ms: int, tried: Collection[NodeId]) -> list[NodeEntry]:
    return [
        entry
        for profile in view.serving(need)
        for entry in profile.free.ascending(rng)
        if _is_fit(entry, need, now_ms, tried)
    ]


def _is_fit(entry: NodeEntry, need: Need, now_ms: int, tried: Collection[NodeId]) -> bool:
    return entry.node.id not in tried and not (entry.marks and entry.is_marked(need, now_ms))
