"""What does a small node look like to the core, and how many examples does a property get?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import settings

from dragoman.core.capability import Languages, Service
from dragoman.core.ids import NodeId
from dragoman.core.language import Language
from dragoman.core.node import Health, Node, NodeStatus, newly_registered
from dragoman.core.profiles import NodeEntry
from dragoman.core.view import FleetView


def examples(number: int) -> settings:
    """This many examples for a property, the same in every run."""
    return settings(max_examples=number, deadline=None, derandomize=True)


def languages(*tags: str) -> frozenset[Language]:
    """A set of languages."""
    return frozenset(Language(tag) for tag in tags)


def services(*names: str) -> frozenset[Service]:
    """A set of services."""
    return frozenset(Service(name) for name in names)


def pairs(*listed: tuple[str, str]) -> frozenset[tuple[Language, Language]]:
    """A set of pairs of languages."""
    return frozenset((Language(src), Language(tgt)) for src, tgt in listed)


def a_node(name: str = "n1", slots: int = 1, **fields: Any) -> Node:
    """A node that hears, translates and speaks every language, for everyone."""
    node = Node(id=NodeId(name), slots=slots, services=services("asr", "nmt", "tts"), languages=Languages())
    return replace(node, **fields)


def a_health(status: NodeStatus = NodeStatus.READY) -> Health:
    """A node that does well, or is in another state."""
    return replace(newly_registered(0), status=status)


def enter(view: FleetView, node: Node, *, used: int = 0, load: float = 0.0) -> NodeEntry:
    """A ready node in the view, with some slots taken."""
    entry = view.put(node, a_health())
    view.set_used(node.id, used)
    view.set_load(entry, load, is_overloaded=False)
    return entry


def a_fleet(nodes: Iterable[Node]) -> FleetView:
    """Ready nodes that do nothing yet."""
    view = FleetView()
    for node in nodes:
        enter(view, node)
    return view
