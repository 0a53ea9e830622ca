"""Which nodes are worth trying for a job, and in which order?

One short ranking is drawn from the nodes believed free and handed to the store, which takes the first that really is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from random import Random
from typing import Final

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId
from dragoman.core.job import Candidate
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.view import FleetView, NodeEntry

RANKING_MAX: Final = 4
"""Nodes in a ranking: enough that one of them is free when the view is a little old, few enough for one store call."""

_by_load = attrgetter("rank")
_by_turn = attrgetter("assigned")


class Strategy(StrEnum):
    """How nodes that could all take a job are ordered."""

    LEAST_CONNECTIONS = "least_connections"
    RANDOM = "random"
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionPolicy:
    """What the operator wants of the choice."""

    strategy: Strategy = Strategy.LEAST_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Ranking:
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
) -> Ranking | Refusal:
    """Rank the nodes that can take the need now.

    The node that the need prefers comes first when it can. Nodes in `tried` are left out. `spread_from` comes last.
    """
    found = _draw(need, view, policy, rng, now_ms, tried)
    if spread_from is not None and len(found) > 1:
        found.sort(key=lambda entry: entry.node.id == spread_from)
    if need.preferred is not None and need.preferred not in tried:
        entry = view.get(need.preferred)
        if entry is not None and entry.refuses(need, now_ms) is None:
            found = [entry, *(other for other in found if other is not entry)]
    if not found:
        return count_refusals(need, view, now_ms=now_ms, tried=tried)
    return Ranking(tuple([Candidate(entry.node.id, entry.node.slots) for entry in found[:RANKING_MAX]]))


def count_refusals(need: Need, view: FleetView, *, now_ms: int, tried: Collection[NodeId] = ()) -> Refusal:
    """Say for how many nodes each reason holds. Looks at every node: ask it when there is nothing better to do."""
    counts = Counter(
        Reason.ALREADY_TRIED if entry.node.id in tried and not entry.can_never(need) else entry.refuses(need, now_ms)
        for entry in view
    )
    return Refusal(counts={reason: count for reason, count in counts.items() if reason is not None})


def _draw(
    need: Need, view: FleetView, policy: SelectionPolicy, rng: Random, now_ms: int, tried: Collection[NodeId]
) -> list[NodeEntry]:
    # One more than a ranking holds, so that the node to be spread from can be last and still leave a full ranking.
    limit = RANKING_MAX + 1 if policy.strategy is Strategy.LEAST_CONNECTIONS else len(view)
    found = _first(need, view.everyone.free.ascending(rng), now_ms, tried, limit)
    match policy.strategy:
        case Strategy.LEAST_CONNECTIONS:
            found.sort(key=_by_load)
        case Strategy.RANDOM:
            rng.shuffle(found)
        case Strategy.ROUND_ROBIN:
            found.sort(key=_by_turn)
    return found


def _first(
    need: Need, entries: Iterable[NodeEntry], now_ms: int, tried: Collection[NodeId], limit: int
) -> list[NodeEntry]:
    found: list[NodeEntry] = []
    for entry in entries:
        verdict = entry.verdicts.get(need, need)  # a need is no verdict: it stands for "not asked yet"
        if verdict is need:
            verdict = entry.can_never(need)
        if verdict is not None or (entry.marks and entry.is_marked(need, now_ms)) or entry.node.id in tried:
            continue
        found.append(entry)
        if len(found) >= limit:
            break
    return found
