"""What does the choice of a node cost, as the fleet grows?"""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from typing import Final

import msgspec

from dragoman.bench.load import PAIRS
from dragoman.core.capability import Languages, Service, need
from dragoman.core.ids import NodeId
from dragoman.core.language import Language
from dragoman.core.node import Node, NodeStatus, newly_registered
from dragoman.core.selection import Ranking, SelectionPolicy, rank_nodes
from dragoman.core.view import FleetView

_SLOTS: Final = 8
_LOAD: Final = 0.8
_SERVICES: Final = frozenset({Service.NMT, Service.TTS})


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What one choice cost in a fleet of this size: microseconds of processor time, the view's upkeep included."""

    nodes: int
    choose_us: float
    choose_and_keep_us: float


def measure_choices(nodes: int, choices: int = 20_000, seed: int = 1) -> Choice:
    """Choose again and again in a fleet at 80 % of its slots, of 16 language pairs."""
    rng = Random(seed)  # noqa: S311  # for a benchmark
    view = _fleet(nodes, rng)
    needs = [need(_SERVICES, ((Language(src), Language(tgt)),)) for src, tgt in PAIRS]
    policy = SelectionPolicy()
    for place in range(len(needs)):
        rank_nodes(needs[place], view, policy, rng, now_ms=0)
    started = time.process_time()
    for turn in range(choices):
        rank_nodes(needs[turn % len(needs)], view, policy, rng, now_ms=0)
    choose_s = time.process_time() - started
    started = time.process_time()
    for turn in range(choices):
        ranking = rank_nodes(needs[turn % len(needs)], view, policy, rng, now_ms=0)
        assert isinstance(ranking, Ranking)
        node_id = ranking.candidates[0].node_id
        entry = view.get(node_id)
        assert entry is not None
        view.take(node_id, entry.used + 1)
        view.give_back(node_id)
    keep_s = time.process_time() - started
    return Choice(nodes=nodes, choose_us=choose_s / choices * 1e6, choose_and_keep_us=keep_s / choices * 1e6)


def _fleet(nodes: int, rng: Random) -> FleetView:
    view = FleetView()
    ready = replace(newly_registered(0), status=NodeStatus.READY)
    for number in range(nodes):
        src, tgt = PAIRS[number % len(PAIRS)]
        languages = Languages(pairs=frozenset({(Language(src), Language(tgt))}))
        node = Node(id=NodeId(f"n{number}"), slots=_SLOTS, services=_SERVICES, languages=languages)
        entry = view.put(node, ready)
        view.set_load(entry, rng.uniform(0, 80), is_overloaded=False)
        view.set_used(node.id, sum(rng.random() < _LOAD for _ in range(_SLOTS)))
    return view
