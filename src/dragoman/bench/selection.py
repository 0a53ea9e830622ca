"""What does the choice of a node cost, as the fleet grows, and what does it cost to keep the pools?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from random import Random
from typing import Final

import msgspec

from dragoman.core.capability import Languages, Need, Service, need
from dragoman.core.ids import NodeId
from dragoman.core.language import Language
from dragoman.core.node import Node, NodeStatus, newly_registered
from dragoman.core.pools import Naming, PoolPolicy
from dragoman.core.selection import Ranking, SelectionPolicy, rank_nodes
from dragoman.core.view import FleetView

POOLS: Final = (16, 500)
SAMPLE_SIZE: Final = 20

_SLOTS: Final = 8
_LOAD: Final = 0.8
_SERVICES: Final = frozenset({Service.NMT, Service.TTS})
_ALL: Final = 1_000_000_000
_READY: Final = replace(newly_registered(0), status=NodeStatus.READY)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What one choice cost in a fleet of this size: microseconds of processor time, the view's upkeep included."""

    nodes: int
    pools: int
    is_by_pools: bool
    choose_us: float
    choose_and_keep_us: float


class Upkeep(msgspec.Struct, frozen=True, kw_only=True):
    """What one node that registers, changes or leaves cost in a fleet of this size: microseconds of processor time."""

    nodes: int
    pools: int
    register_us: float
    change_us: float
    leave_us: float
    core_at_1000_per_s: float
    """The part of one processor that a thousand such changes a second take."""


def measure_choices(
    nodes: int, pools: int = POOLS[0], *, is_by_pools: bool = True, choices: int = 20_000, seed: int = 1
) -> Choice:
    """Choose again and again in a fleet at 80 % of its slots, of so many language pairs, each a pool of its own."""
    rng = Random(seed)  # noqa: S311  # for a benchmark
    view = FleetView(_policy(is_on=is_by_pools))
    pairs = _pairs(min(pools, nodes))
    for number in range(nodes):
        _enter(view, _node(number, pairs), rng)
    needs = [need(_SERVICES, (pair,)) for pair in pairs]
    rng.shuffle(needs)
    policy = SelectionPolicy(sample_size=SAMPLE_SIZE if is_by_pools else None)
    _choose(needs, view, policy, rng, len(needs))
    choose_s = _choose(needs, view, policy, rng, choices)
    started = time.process_time()
    for turn in range(choices):
        ranking = rank_nodes(needs[turn % len(needs)], view, policy, rng, now_ms=0)
        if not isinstance(ranking, Ranking):
            continue
        node_id = ranking.candidates[0].node_id
        entry = view.get(node_id)
        assert entry is not None
        view.take(node_id, entry.used + 1)
        view.give_back(node_id)
    keep_s = time.process_time() - started
    return Choice(
        nodes=nodes,
        pools=len(pairs),
        is_by_pools=is_by_pools,
        choose_us=choose_s / choices * 1e6,
        choose_and_keep_us=keep_s / choices * 1e6,
    )


def measure_upkeep(nodes: int, pools: int = POOLS[0], changes: int = 5_000, seed: int = 1) -> Upkeep:
    """Let nodes register, change what they can do, and leave, in a fleet that stays about as large."""
    rng = Random(seed)  # noqa: S311  # for a benchmark
    view = FleetView(_policy(is_on=True))
    pairs = _pairs(min(pools, nodes))
    for number in range(nodes):
        _enter(view, _node(number, pairs), rng)
    policy, needs = SelectionPolicy(sample_size=SAMPLE_SIZE), [need(_SERVICES, (pair,)) for pair in pairs]
    _choose(needs, view, policy, rng, len(needs))
    steps = []
    for shift in (0, 1, None):
        # Nodes as they come off the wire: nothing of them is shared with those that are known.
        new = [_node(nodes + turn, pairs, shift or 0) for turn in range(changes)]
        started = time.process_time()
        for turn, node in enumerate(new):
            if shift is None:
                view.drop(node.id)
            else:
                view.put(node, _READY)
            if not turn % 10:
                rank_nodes(needs[turn % len(needs)], view, policy, rng, now_ms=0)
        steps.append((time.process_time() - started) / changes * 1e6)
    register_us, change_us, leave_us = steps
    return Upkeep(
        nodes=nodes,
        pools=len(pairs),
        register_us=register_us,
        change_us=change_us,
        leave_us=leave_us,
        core_at_1000_per_s=sum(steps) / 3 / 1000,
    )


def _choose(needs: Sequence[Need], view: FleetView, policy: SelectionPolicy, rng: Random, choices: int) -> float:
    """Seconds for so many choices."""
    started = time.process_time()
    for turn in range(choices):
        rank_nodes(needs[turn % len(needs)], view, policy, rng, now_ms=0)
    return time.process_time() - started


def _policy(*, is_on: bool) -> PoolPolicy:
    return PoolPolicy(is_on=is_on, naming=Naming.PAIR, requires_semantic=False, pools_max=_ALL)


def _pairs(count: int) -> list[tuple[Language, Language]]:
    tags = [Language(chr(97 + place // 26) + chr(97 + place % 26)) for place in range(23)]
    return list(permutations(tags, 2))[:count]


def _node(number: int, pairs: Sequence[tuple[Language, Language]], shift: int = 0) -> Node:
    languages = Languages(pairs=frozenset({pairs[(number + shift) % len(pairs)]}))
    return Node(id=NodeId(f"n{number}"), slots=_SLOTS, services=_SERVICES, languages=languages)


def _enter(view: FleetView, node: Node, rng: Random) -> None:
    entry = view.put(node, _READY)
    view.set_load(entry, rng.uniform(0, 80), is_overloaded=False)
    view.set_used(node.id, sum(rng.random() < _LOAD for _ in range(_SLOTS)))
