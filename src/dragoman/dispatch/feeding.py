"""How do jobs that wait on one instance get slots that become free on another? By asking, while any wait."""

from __future__ import annotations

from typing import Final

from dragoman.core.ids import InstanceId, NodeId
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
        self._due: dict[InstanceId, int] = {}
        """How much each instance that has jobs waiting is due to have a turn."""

    def share(self, node_id: NodeId) -> bool:
        """A node connected here has a free slot, and jobs wait here. Whether it is the turn of another instance.

        Who waits where the nodes are must not get all: each instance has its turn as often as it has jobs that wait.
        It is told then; if it takes nothing, `feed` finds out.
        """
        hungry = self._inbox.hungry
        if not hungry:
            return False
        whose = self._take_turn({peer: hunger.jobs for peer, hunger in hungry.items()})
        offer = self._with_room({node_id}) if whose != self._router.me else ()
        if offer:
            self._router.outbox.post(whose, Freed(offer))
        return bool(offer)

    def released(self, node_id: NodeId) -> None:
        """A job of this instance gave a slot back: if jobs wait where the node is connected, that must know."""
        home = self._router.node_homes.get(node_id)
        entry = self._dispatcher.view.get(node_id)
        if home in self._inbox.hungry and entry is not None:
            self._router.outbox.post(home, Freed(((node_id, entry.used),)))

    def feed(self) -> tuple[NodeId, ...]:
        """Do both. To be called many times a second while `is_hungry` is set.

        Answers nodes connected here that have room while jobs wait here.
        """
        now_ms = self._dispatcher.clock.now_ms()
        if len(self._dispatcher.waiting) and self._router.peers and now_ms - self._asked_ms >= _ASK_EVERY_MS:
            self._asked_ms = now_ms
            for peer in self._router.peers:
                self._router.outbox.post(peer, Hungry(_ASK_FOR_MS, len(self._dispatcher.waiting)))
        freed, self._dispatcher.freed = self._dispatcher.freed, set()
        hungry = self._inbox.hungry
        if not hungry:
            if not len(self._dispatcher.waiting):
                self._dispatcher.is_hungry.clear()
            return ()
        used = self._with_room(freed)
        for peer, hunger in tuple(hungry.items()):
            if hunger.until_ms <= now_ms or peer not in self._router.peers:
                del hungry[peer]
            elif used:
                self._router.outbox.post(peer, Freed(used))
        return tuple(node_id for node_id, _ in used) if len(self._dispatcher.waiting) else ()

    def _take_turn(self, others: dict[InstanceId, int]) -> InstanceId:
        """Whose turn it is, in the smooth order of weighted round robin."""
        waiting = others | {self._router.me: len(self._dispatcher.waiting)}
        due = {who: self._due.get(who, 0) + jobs for who, jobs in waiting.items()}
        whose = max(due, key=lambda who: due[who])
        due[whose] -= sum(waiting.values())
        self._due = due
        return whose

    def _with_room(self, freed: set[NodeId]) -> tuple[tuple[NodeId, int], ...]:
        found: list[tuple[NodeId, int]] = []
        for node_id in freed:
            entry = self._dispatcher.view.get(node_id)
            if entry is None or node_id not in self._router.nodes or entry.health.status is not NodeStatus.READY:
                continue
            if entry.used < entry.node.slots and len(found) < _FREED_MAX:
                found.append((node_id, entry.used))
        return tuple(found)
