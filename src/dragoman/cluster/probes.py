"""Does a node's connection at another instance live? Who claims the node's id here must know."""

from __future__ import annotations

import asyncio
from typing import Final

from dragoman.core.ids import InstanceId, NodeId
from dragoman.protocol.letters import Probe
from dragoman.routing.router import Router

_BEGIN_S: Final = 0.5
"""How soon an instance that is alive says at least that it looks into it."""
_PATIENCE_S: Final = 3.0
"""Longer than it waits for the node's own sign of life."""


class Probes:
    """Questions to other instances about nodes' connections."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._asked: dict[NodeId, _Asked] = {}

    async def is_alive(self, node_id: NodeId, holder: InstanceId) -> bool:
        """Whether the node is alive at its holder.

        A holder that does not answer at all is dead, or as good as: the node is not there for anybody.
        """
        if holder not in self._router.peers:
            return False
        asked = self._asked.get(node_id)
        if asked is None:
            asked = self._asked[node_id] = _Asked()
            self._router.outbox.post(holder, Probe(node_id))
        # No asyncio.timeout: an errand's first steps are outside any task.
        await asyncio.wait([asked.begun], timeout=_BEGIN_S)
        if not asked.begun.done():
            self._asked.pop(node_id, None)
            return False
        await asyncio.wait([asked.outcome], timeout=_PATIENCE_S)
        if self._asked.get(node_id) is asked:
            del self._asked[node_id]
        return asked.outcome.result() if asked.outcome.done() else True

    def answered(self, node_id: NodeId, is_alive: bool | None) -> None:  # noqa: FBT001  # the question is in the name
        """The holder says whether it lives; None: that it looks into it."""
        asked = self._asked.get(node_id)
        if asked is None:
            return
        if not asked.begun.done():
            asked.begun.set_result(None)
        if is_alive is not None and not asked.outcome.done():
            asked.outcome.set_result(is_alive)


class _Asked:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.outcome: asyncio.Future[bool] = loop.create_future()
