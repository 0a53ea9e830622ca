"""How do the slots of nodes live on the server? A sorted set of holds for each node, by deadline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from dragoman.core.ids import JobId, NodeId
from dragoman.core.job import Candidate
from dragoman.store.interface import AllFull, Hold, Placement, Release, Reserved, Slots
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.poison import answer_or, note_unreadable
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import Servers

_LAPSES_MAX: Final = 100
"""Nodes whose leases are looked at in one go."""
_ROUNDS_MAX: Final = 100
_DUE_TTL_MS: Final = 3_600_000

_RESERVE = load_script("reserve")
_RELEASE = load_script("release")
_ORPHAN = load_script("orphan")
_RENEW = load_script("renew")
_DUE = load_script("due")
_LAPSE = load_script("lapse")
_HOLD = load_script("hold")

SCRIPTS = (_RESERVE, _RELEASE, _ORPHAN, _RENEW, _DUE, _LAPSE, _HOLD)


class RedisSlots:
    """See Jobs: what is of slots."""

    def __init__(self, servers: Servers, keys: Keys, time: ServerTime) -> None:
        self._servers = servers
        self._keys = keys
        self._time = time

    async def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """See Store."""
        self._time.check()
        keys = (self._keys.slots(node_id), self._keys.over(node_id))
        return Release((await self._servers.run(_RELEASE, keys, (job_id, attempt))).decode())

    async def restore_slots(self, node_id: NodeId, holds: Sequence[tuple[JobId, int]], lease_ms: int) -> Slots:
        """See Store."""
        self._time.check()
        flat = [word for job_id, attempt in holds for word in (job_id, attempt)]
        used = await self._servers.run(_HOLD, (self._keys.slots(node_id), self._keys.due), (node_id, lease_ms, *flat))
        return Slots(int(used))

    async def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_for_ms: int
    ) -> Slots:
        """See Store."""
        self._time.check()
        keys = (self._keys.slots(node_id), self._keys.over(node_id))
        listed = ("all",) if running is None else ("listed", *running)
        answer = await self._servers.run(_RENEW, keys, (lease_ms, max(orphaned_for_ms, 0), *listed))
        released = tuple([(_job_id(answer[at]), int(answer[at + 1])) for at in range(1, len(answer), 2)])
        return Slots(int(answer[0]), released)

    async def count_slots(self, node_ids: Sequence[NodeId]) -> tuple[int, ...]:
        """See Store."""
        self._time.check()
        keys = [self._keys.slots(node_id) for node_id in node_ids]
        counting = [self._servers.call(key, "ZCARD", key) for key in keys]
        return tuple([int(await count) for count in counting])

    async def lapse_slots(self) -> tuple[Hold, ...]:
        """See Store."""
        self._time.check()
        lapsed: list[Hold] = []
        for _ in range(_ROUNDS_MAX):
            found = await self._servers.run(_DUE, (self._keys.due,), (_LAPSES_MAX, _DUE_TTL_MS))
            lapsed += await self._lapse(self._readable(found))
            if len(found) < _LAPSES_MAX:
                break
        return tuple(lapsed)

    async def idle_holds(self, node_ids: Sequence[NodeId]) -> tuple[Hold, ...]:
        """See Store."""
        self._time.check()
        holds = await self._live_holds(node_ids)
        keys = [self._keys.job(hold.job_id) for hold in holds]
        asked = [self._servers.call(key, "HMGET", key, "attempt", "node") for key in keys]
        idle: list[Hold] = []
        for hold, reading in zip(holds, asked, strict=True):
            attempt, node = await answer_or(reading, (None, None))
            if attempt != b"%d" % hold.attempt or node != hold.node_id.encode("utf-8", "surrogatepass"):
                idle.append(hold)
        return tuple(idle)

    async def orphan_slot(self, hold: Hold, lease_ms: int) -> None:
        """See Store."""
        self._time.check()
        await self._servers.run(
            _ORPHAN, self._hold_keys(hold.node_id), (hold.job_id, hold.attempt, lease_ms, hold.node_id)
        )

    # --- how

    async def _reserve(self, job_id: JobId, attempt: int, ranking: Sequence[Candidate], lease_ms: int) -> Placement:
        self._time.check()
        keys = self._keys
        names = [keys.due]
        arguments: list[Any] = [job_id, attempt, lease_ms]
        for node_id, slots in ranking:
            names.append(keys.slots(node_id))
            arguments += (node_id, slots)
        answer = await self._servers.run(_RESERVE, names, arguments)
        tried = tuple([(ranking[at].node_id, used) for at, used in enumerate(answer[1:])])
        if answer[0] == b"full":
            return AllFull(tried)
        node_id, used = tried[-1]
        return Reserved(node_id, attempt + 1, used, tried[:-1])

    def _leave_node(self, node: str, job_id: JobId, attempt: int, *, release: bool) -> None:
        if not node:
            return
        node_id = NodeId(node)
        if release:
            keys = (self._keys.slots(node_id), self._keys.over(node_id))
            self._servers.tell_script(_RELEASE, keys, (job_id, attempt))
        else:
            self._servers.tell_script(_ORPHAN, self._hold_keys(node_id), (job_id, attempt, "", node_id))

    def _hold_keys(self, node_id: NodeId) -> tuple[bytes, bytes, bytes]:
        return self._keys.slots(node_id), self._keys.over(node_id), self._keys.due

    def _give_back(self, job_id: JobId, placement: Placement) -> None:
        if isinstance(placement, Reserved):
            self._leave_node(placement.node_id, job_id, placement.attempt, release=True)

    def _readable(self, names: Sequence[bytes]) -> list[NodeId]:
        node_ids: list[NodeId] = []
        for name in names:
            try:
                node_ids.append(NodeId(name.decode()))
            except UnicodeDecodeError as error:
                note_unreadable(self._servers.failures, "node", repr(name[:40]), error)
                self._not_due(name)
        return node_ids

    def _not_due(self, name: bytes | str) -> None:
        """Nothing can be done for this node: else it would be the first in line for ever."""
        self._servers.tell(self._keys.due, "ZREM", self._keys.due, name)

    async def _lapse(self, node_ids: Sequence[NodeId]) -> list[Hold]:
        keys = self._keys
        asked = [
            self._servers.run(_LAPSE, (keys.slots(node_id), keys.over(node_id), keys.due), (node_id,))
            for node_id in node_ids
        ]
        lapsed: list[Hold] = []
        for node_id, lapsing in zip(node_ids, asked, strict=True):
            answer = await answer_or(lapsing, None)
            if answer is None:
                self._not_due(node_id)
                continue
            lapsed += [Hold(node_id, _job_id(answer[at]), int(answer[at + 1])) for at in range(0, len(answer), 2)]
        return lapsed

    async def _live_holds(self, node_ids: Sequence[NodeId]) -> list[Hold]:
        """The holds of nodes whose attempts are not known to be over."""
        asked = []
        for node_id in node_ids:
            slots, over = self._keys.slots(node_id), self._keys.over(node_id)
            held = self._servers.call(slots, "ZRANGE", slots, 0, -1, "WITHSCORES")
            asked.append((node_id, held, self._servers.call(over, "ZRANGE", over, 0, -1)))
        holds: list[Hold] = []
        for node_id, held, ended in asked:
            flat, orphans = await answer_or(held, ()), set(await answer_or(ended, ()))
            holds += [
                Hold(node_id, _job_id(job), _attempt(score))
                for job, score in zip(flat[::2], flat[1::2], strict=True)
                if job not in orphans
            ]
        return holds


def _attempt(score: bytes) -> int:
    fraction = float(score) % 1
    # Of a score that is none of ours there may be no fraction at all.
    return round(fraction * 4096) if math.isfinite(fraction) else 0


def _job_id(word: bytes) -> JobId:
    return JobId(word.decode(errors="replace"))
