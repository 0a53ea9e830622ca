"""Which instances are alive? Each says so again and again; who does not is dead."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from dragoman.core.ids import InstanceId
from dragoman.routing.router import Router
from dragoman.store.interface import Store, StoreDownError
from dragoman.store.registry import Instance, Renewal
from dragoman.telemetry.logs import get_logger

log = get_logger("presence")

_RENEWALS: Final = 3
"""In one time to live of a presence."""
_JOIN_POLL_S: Final = 0.25
LOOK_MS: Final = 500
"""How often it is looked who is there. A presence lasts that much less than its time to live, so that everybody knows
of a death within the time to live."""


class IdTakenError(RuntimeError):
    """Another instance has this id."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look around shows."""

    gone: tuple[InstanceId, ...]
    """Peers that were there before, and are not."""
    dead: tuple[InstanceId, ...]
    """Instances that did not leave in good order: what they left must be seen to."""


class Presence:
    """Keeps this instance known as alive, and knows who else is."""

    def __init__(self, store: Store, router: Router, instance: Instance, *, ttl_ms: int) -> None:
        self._store = store
        self._router = router
        self._instance = instance
        self._ttl_ms = max(ttl_ms - LOOK_MS, ttl_ms // 2)
        self._wait_ms = ttl_ms
        self._trusted_from_s = 0.0

    async def join(self) -> None:
        """Announce this instance. Raises IdTakenError when its id is in use for longer than a dead one's would be."""
        deadline_s = asyncio.get_running_loop().time() + self._wait_ms / 1000 + 1
        is_waiting = False
        while not await self._store.join(self._instance, self._ttl_ms):
            if asyncio.get_running_loop().time() > deadline_s:
                name = self._instance.id
                raise IdTakenError(
                    f"another instance with instance_id {name!r} is alive; give each its own, or leave it out for "
                    "one that is made up"
                )
            if not is_waiting:
                is_waiting = True
                log.info("the id is in use, waiting whether that one is dead", instance_id=self._instance.id)
            await asyncio.sleep(_JOIN_POLL_S)

    async def renew(self) -> Renewal | None:
        """Say that it lives, after a while. None: that could not be said now."""
        await asyncio.sleep(self._wait_ms / 1000 / _RENEWALS)
        return await self.renew_now()

    async def renew_now(self) -> Renewal | None:
        """Say that it lives."""
        try:
            renewal = await self._store.renew(self._instance, self._ttl_ms)
        except StoreDownError:
            return None
        if renewal is not Renewal.RENEWED:
            log.warning("presence was lost", instance_id=self._instance.id, renewal=renewal)
        return renewal

    def distrust(self) -> None:
        """The store was away: who is missing there may only not have come back to it yet."""
        self._trusted_from_s = asyncio.get_running_loop().time() + self._wait_ms / 1000

    def is_in_doubt(self) -> bool:
        """Whether what is missing in the store may only not have been written again yet."""
        return asyncio.get_running_loop().time() < self._trusted_from_s

    async def look(self) -> Seen:
        """See who is alive and who is not any more."""
        alive: set[InstanceId] = set()
        dead: list[InstanceId] = []
        for instance, name in await self._store.instances():
            if name == self._instance.id:
                continue
            if instance is None:
                dead.append(name)
            else:
                alive.add(name)
        for name in sorted(alive - self._router.peers):
            log.info("instance is there", peer=name)
        self._router.peers |= alive
        if self.is_in_doubt():
            return Seen((), ())
        return Seen(tuple(sorted(self._router.peers - alive)), tuple(dead))
