"""Which pools are there, where would a job go, and why there? Answers for people; nothing is reserved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId
from dragoman.core.pool_index import Route
from dragoman.core.pools import OUTSIDE, Pool
from dragoman.core.profiles import NodeEntry, Profile
from dragoman.core.refusal import Reason, Refusal
from dragoman.core.selection import Affinity, Fallback, Ranking, SelectionPolicy, count_refusals, rank_nodes
from dragoman.core.view import FleetView


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """One pool as it is now."""

    name: str
    languages: tuple[str, ...]
    """What it stands for; empty: any."""
    nodes: int
    ready: int
    """Nodes that can take a job now, or could if they were not full."""
    slots: int
    busy_slots: int
    free_slots: int


class Why(StrEnum):
    """Why a pool was chosen first."""

    TENANT = "tenant"
    """It is the one of the job's tenant."""
    AFFINITY = "affinity"
    """The routing key has it."""
    ONLY = "only"
    """No other is for the job."""
    FREE_SLOTS = "free_slots"
    """By lot, by free slots."""
    NONE = "none"
    """None is for the job."""


class Place(StrEnum):
    """What became of a node that was looked at."""

    FIRST = "first"
    IN_RESERVE = "in_reserve"
    """Tried if those before it turn out to be full."""
    BUSIER = "busier"
    """Others were less busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node that was looked at for a job."""

    node_id: NodeId
    pool: str
    used: int
    slots: int
    load: float
    """The busiest of its resources, in percent."""
    verdict: Place | Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a job would go, and why there."""

    eligible: tuple[PoolReport, ...]
    """The pools that are for it; of each, only the nodes that can serve it."""
    chosen: str | None
    """The pool that was chosen first."""
    why: Why
    selected: str | None
    """The pool that the first node is from."""
    fallback: Fallback | None
    sampled: tuple[NodeReport, ...]
    """Nodes that were looked at, the best first."""
    ranking: tuple[NodeId, ...]
    passed_over: dict[Reason, int]
    """How many nodes could not take it now, by reason."""


def list_pools(view: FleetView) -> tuple[PoolReport, ...]:
    """Every pool, the largest first, then those made by hand that have no nodes, then who is in none."""
    found = [_report(group.pool.name, group.pool, tuple(group.profiles.values())) for group in view.pools.planned()]
    known = {report.name for report in found}
    found += [_report(pool.name, pool, ()) for pool in view.pools.policy.manual or () if pool.name not in known]
    outside = tuple(
        profile for profile in view.profiles.values() if not any(group.is_planned for group in profile.groups)
    )
    if any(profile.online for profile in outside):
        found.append(_report(OUTSIDE, None, outside))
    return tuple(found)


def explain(
    need: Need,
    view: FleetView,
    policy: SelectionPolicy,
    rng: Random,
    *,
    now_ms: int,
    tried: Collection[NodeId] = (),
    affinity: Affinity | None = None,
) -> Explanation:
    """Choose as for a job, and say what was looked at."""
    route = view.route(need)
    looked: list[tuple[str, NodeEntry]] = []
    seen: list[str] = []

    def watch(pool: str, entries: list[NodeEntry]) -> None:
        seen.append(pool)
        looked.extend((pool, entry) for entry in entries)

    found = rank_nodes(
        need,
        view,
        policy,
        rng,
        now_ms=now_ms,
        tried=tried,
        affinity=affinity,
        watch=watch,
    )
    ranking = tuple(candidate.node_id for candidate in found.candidates) if isinstance(found, Ranking) else ()
    return Explanation(
        eligible=tuple(
            _report(arm.name, None if arm.group is None else arm.group.pool, arm.profiles) for arm in route.arms
        ),
        chosen=seen[0] if route.arms and seen else None,
        why=_why(route, affinity),
        selected=found.pool if isinstance(found, Ranking) else None,
        fallback=found.fallback if isinstance(found, Ranking) else None,
        sampled=_judge(looked, ranking, need, tried, now_ms),
        ranking=ranking,
        passed_over=_passed_over(need, view, tried, now_ms),
    )


def _why(route: Route, affinity: Affinity | None) -> Why:
    if not route.arms:
        return Why.NONE
    if route.override is not None:
        return Why.TENANT
    if len(route.arms) == 1:
        return Why.ONLY
    return Why.FREE_SLOTS if affinity is None else Why.AFFINITY


def _judge(
    looked: list[tuple[str, NodeEntry]],
    ranking: tuple[NodeId, ...],
    need: Need,
    tried: Collection[NodeId],
    now_ms: int,
) -> tuple[NodeReport, ...]:
    places = {node_id: place for place, node_id in enumerate(ranking)}
    reports: dict[NodeId, NodeReport] = {}
    for pool, entry in looked:
        place = places.get(entry.node.id)
        verdict: Place | Reason = Place.BUSIER
        if place is not None:
            verdict = Place.IN_RESERVE if place else Place.FIRST
        elif entry.node.id in tried:
            verdict = Reason.ALREADY_TRIED
        else:
            verdict = entry.refuses(need, now_ms) or Place.BUSIER
        reports.setdefault(
            entry.node.id,
            NodeReport(
                node_id=entry.node.id,
                pool=pool,
                used=entry.used,
                slots=entry.node.slots,
                load=entry.load,
                verdict=verdict,
            ),
        )
    last = len(places)
    return tuple(sorted(reports.values(), key=lambda report: places.get(report.node_id, last)))


def _passed_over(need: Need, view: FleetView, tried: Collection[NodeId], now_ms: int) -> dict[Reason, int]:
    refusal: Refusal = count_refusals(need, view, now_ms=now_ms, tried=tried)
    return refusal.counts


def _report(name: str, pool: Pool | None, profiles: tuple[Profile, ...]) -> PoolReport:
    return PoolReport(
        name=name,
        languages=() if pool is None else _languages(pool),
        nodes=sum(profile.online for profile in profiles),
        ready=sum(profile.standings[None] + profile.standings[Reason.FULL] for profile in profiles),
        slots=sum(profile.slots for profile in profiles),
        busy_slots=sum(profile.busy_slots for profile in profiles),
        free_slots=sum(profile.free_slots for profile in profiles),
    )


def _languages(pool: Pool) -> tuple[str, ...]:
    if pool.target is not None:
        return (f"*-{pool.target}",)
    if pool.pairs is not None:
        return tuple(f"{src}-{tgt}" for src, tgt in sorted(pool.pairs))
    return tuple(sorted(pool.languages or ()))
