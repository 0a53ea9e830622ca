"""How do jobs that wait on one instance get slots that become free on another? By asking, while any wait."""

from __future__ import annotations

from typing import Final

from dragoman.core.ids import NodeId
from dragoman.core.node import NodeStatus
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.inbox import Inbox
from dragoman.protocol.letters import Freed, Hungry

_ASK_EVERY_MS: Final = 1000
_ASK_FOR_MS: Final = 2000
_FREED_MAX: Final = 500
"""Nodes told of in one note."""


class Feeding:
    """Tells other instances of free slots when jobs wait there, and asks them when jobs wait here."""

    def __init__(self, dispatcher: Dispatcher, inbox: Inbox) -> None:
        self._dispatcher = dispatcher
        self._router = dispatcher.router
        self._inbox = inbox
        self._asked_ms = 0

    def feed(self) -> None:
        """Do both. To be called many times a second while `is_hungry` is set."""
        now_ms = self._dispatcher.clock.now_ms()
        if len(self._dispatcher.waiting) and self._router.peers and now_ms - self._asked_ms >= _ASK_EVERY_MS:
            self._asked_ms = now_ms
            for peer in self._router.peers:
                self._router.outbox.post(peer, Hungry(_ASK_FOR_MS))
        freed, self._dispatcher.freed = self._dispatcher.freed, set()
        hungry = self._inbox.hungry
        if not hungry:
            if not len(self._dispatcher.waiting):
                self._dispatcher.is_hungry.clear()
            return
        used = self._with_room(freed)
        for peer, until_ms in tuple(hungry.items()):
            if until_ms <= now_ms or peer not in self._router.peers:
                del hungry[peer]
            elif used:
                self._router.outbox.post(peer, Freed(used))

    def _with_room(self, freed: set[NodeId]) -> tuple[tuple[NodeId, int], ...]:
        found: list[tuple[NodeId, int]] = []
        for node_id in freed:
            entry = self._dispatcher.view.get(node_id)
            if entry is None or node_id not in self._router.nodes or entry.health.status is not NodeStatus.READY:
                continue
            if entry.used < entry.node.slots and len(found) < _FREED_MAX:
                found.append((node_id, entry.used))
        return tuple(found)
