"""How do instances and nodes live on the server? As strings with a time to live; changes as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dragoman.core.capability import Service
from dragoman.core.ids import InstanceId, NodeId, SessionId
from dragoman.core.node import NodeStatus
from dragoman.store.interface import StoreDownError
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.poison import answer_or, note_unreadable
from dragoman.store.redis.records import (
    UnreadableError,
    read_change,
    read_instance,
    read_plan,
    read_snapshot,
    write_change,
    write_instance,
    write_plan,
    write_snapshot,
)
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import Servers
from dragoman.store.registry import (
    Changes,
    Instance,
    NodeLoad,
    NodeSnapshot,
    PoolChange,
    PoolPlan,
    PoolRecord,
    Renewal,
)

_CHANGES_MAX: Final = 10_000
_READ_AT_ONCE: Final = 500
_NOTHING_YET: Final = "0-0"
"""The cursor of a reader who has seen no change. What was trimmed since then cannot be told from what never was."""
_LISTS_TTL_MS: Final = 86_400_000
"""Lists of what there is outlive the last instance by so much."""
_SETTLE_MS: Final = 1000
"""So long after a start from nothing nobody is given a slot: each instance first writes again what it knows."""

_RENEW = load_script("renew_presence")
_CLAIM = load_script("claim")
_UNCLAIM = load_script("unclaim")
_PUBLISH = load_script("publish_node")
_RENEW_NODE = load_script("renew_node")
_RENEW_SESSION = load_script("renew_session")
_PRUNE = load_script("prune")

SCRIPTS = (_RENEW, _CLAIM, _UNCLAIM, _PUBLISH, _RENEW_NODE, _RENEW_SESSION, _PRUNE)


class RedisRegistry:
    """See Registry."""

    def __init__(self, servers: Servers, keys: Keys, server_time: ServerTime) -> None:
        self._servers = servers
        self._keys = keys
        self._time = server_time
        servers.on_up(self._time.doubt)

    @property
    def is_up(self) -> bool:
        """See Store."""
        return self._servers.is_up and self._time.is_valid

    @property
    def failures(self) -> Mapping[str, int]:
        """See Store."""
        return self._servers.failures

    def on_return(self, callback: Callable[[], None]) -> None:
        """See Store."""
        self._servers.on_up(callback)

    # --- instances

    async def join(self, instance: Instance, ttl_ms: int) -> bool:
        """See Store."""
        key, closed = self._keys.presence(instance.id), self._keys.closed(instance.id)
        await self._servers.call(closed, "DEL", closed)
        begun_s = asyncio.get_running_loop().time()
        taken = await self._servers.call(key, "SET", key, write_instance(instance), "PX", ttl_ms, "NX")
        if taken is None:
            return False
        self._time.valid_until_s = begun_s + ttl_ms / 1000
        await self._list(instance.id)
        return True

    async def renew(self, instance: Instance, ttl_ms: int) -> Renewal:
        """See Store."""
        begun_s = asyncio.get_running_loop().time()
        key, record = self._keys.presence(instance.id), write_instance(instance)
        renewal = Renewal((await self._servers.run(_RENEW, (key,), (record, ttl_ms))).decode())
        if renewal is Renewal.TAKEN:
            if await self._is_somebody(instance.id):
                return renewal
            await self._servers.call(key, "SET", key, record, "PX", ttl_ms)
            renewal = Renewal.RETURNED
        await self._list(instance.id)
        if renewal is Renewal.RETURNED:
            await self._settle()
        self._time.valid_until_s = begun_s + ttl_ms / 1000
        return renewal

    async def leave(self, instance_id: InstanceId) -> None:
        """See Store."""
        presence = self._keys.presence(instance_id)
        await self._servers.call(presence, "DEL", presence)
        await self._forget(instance_id)

    async def instances(self) -> tuple[tuple[Instance | None, InstanceId], ...]:
        """See Store."""
        listed = await self._servers.call(self._keys.instances, "SMEMBERS", self._keys.instances)
        ids = [InstanceId(word.decode("utf-8", "replace")) for word in listed]
        keys = [self._keys.presence(instance_id) for instance_id in ids]
        asked = [self._servers.call(key, "GET", key) for key in keys]
        found: list[tuple[Instance | None, InstanceId]] = []
        for instance_id, presence in zip(ids, asked, strict=True):
            record = await answer_or(presence, b"")
            if record is None:
                found.append((None, instance_id))
                continue
            try:
                found.append((read_instance(record), instance_id))
            except UnreadableError as error:
                # Somebody is there, whatever it is that he says.
                self._unreadable("instance", instance_id, error)
                found.append((Instance(id=instance_id, address="", started_ms=0, version=""), instance_id))
        return tuple(found)

    async def is_alive(self, instance_id: InstanceId) -> bool:
        """See Store."""
        key = self._keys.presence(instance_id)
        return bool(await self._servers.call(key, "EXISTS", key))

    async def claim_estate(self, dead: InstanceId, by: InstanceId, lease_ms: int) -> bool:
        """See Store."""
        self._time.check()
        return bool(await self._servers.run(_CLAIM, (self._keys.estate(dead),), (by, "", lease_ms)) == b"")

    async def close_estate(self, dead: InstanceId) -> None:
        """See Store."""
        self._time.check()
        presence, estate = self._keys.presence(dead), self._keys.estate(dead)
        if await self._servers.call(presence, "EXISTS", presence):
            # It is back: what it has now is its own.
            await self._servers.call(estate, "DEL", estate)
            return
        await self._servers.call(estate, "DEL", self._keys.inbox(dead), self._keys.sessions_of(dead), estate)
        await self._servers.call(self._keys.instances, "SREM", self._keys.instances, dead)

    # --- who holds a node

    async def claim_node(
        self, node_id: NodeId, owner: InstanceId, displaced: InstanceId | None, ttl_ms: int
    ) -> InstanceId | None:
        """See Store."""
        self._time.check()
        holder = await self._servers.run(_CLAIM, (self._keys.node_owner(node_id),), (owner, displaced or "", ttl_ms))
        return InstanceId(holder.decode("utf-8", "replace")) if holder else None

    async def release_node(self, node_id: NodeId, owner: InstanceId) -> None:
        """See Store."""
        self._time.check()
        await self._servers.run(_UNCLAIM, (self._keys.node_owner(node_id),), (owner,))

    async def node_owner(self, node_id: NodeId) -> InstanceId | None:
        """See Store."""
        self._time.check()
        key = self._keys.node_owner(node_id)
        owner = await self._servers.call(key, "GET", key)
        return None if owner is None else InstanceId(owner.decode("utf-8", "replace"))

    def renew_owners(
        self, owner: InstanceId, nodes: Sequence[NodeId], sessions: Sequence[SessionId], ttl_ms: int, keep_ms: int
    ) -> None:
        """See Store."""
        if not self._time.is_valid:
            return
        keys, tell = self._keys, self._servers.tell_script
        for node_id in nodes:
            tell(_RENEW_NODE, self._node_keys(node_id), (owner, ttl_ms))
        for session_id in sessions:
            names = (keys.session_owner(session_id), keys.session(session_id))
            tell(_RENEW_SESSION, names, (owner, ttl_ms, ttl_ms + keep_ms))
        for start in range(0, len(nodes), _READ_AT_ONCE):
            self._seen(nodes[start : start + _READ_AT_ONCE])
        for key in (keys.sessions_of(owner), keys.instances, keys.changes):
            self._servers.tell(key, "PEXPIRE", key, _LISTS_TTL_MS)

    # --- what is known of nodes

    async def publish(
        self, owner: InstanceId, nodes: Sequence[NodeSnapshot], loads: Sequence[NodeLoad], ttl_ms: int
    ) -> None:
        """See Store."""
        self._time.check()
        writing = [
            self._servers.run(_PUBLISH, self._node_keys(it.node.id), (owner, ttl_ms, write_snapshot(it), *_said(it)))
            for it in nodes
        ]
        answers = [await answer_or(one, None) for one in writing]
        published = tuple(it.node.id for it, said in zip(nodes, answers, strict=True) if said == b"published")
        if published:
            self._seen(published)
        if published or loads:
            ids, busy = write_change(published, tuple(loads))
            key = self._keys.changes
            await self._servers.call(
                key, "XADD", key, "MAXLEN", "~", _CHANGES_MAX, "*", "by", owner, "nodes", ids, "loads", busy
            )
            self._servers.tell(key, "PEXPIRE", key, _LISTS_TTL_MS)

    async def changes(self, cursor: str | None) -> Changes:
        """See Store."""
        if cursor is None or cursor == _NOTHING_YET:
            return await self._everything()
        key = self._keys.changes
        asked = self._servers.call(key, "XRANGE", key, "-", "+", "COUNT", 1)
        new = await self._servers.call(key, "XRANGE", key, f"({cursor}", "+", "COUNT", _READ_AT_ONCE)
        first = await asked
        if not first or _place(first[0][0]) > _place(cursor.encode()):
            return await self._everything()
        ids: dict[NodeId, None] = {}
        loads: list[NodeLoad] = []
        for entry, flat in new:
            cursor = entry.decode()
            fields = dict(zip(flat[::2], flat[1::2], strict=False)) if flat else {}
            try:
                changed, busy = read_change(fields.get(b"nodes", b""), fields.get(b"loads", b""))
            except UnreadableError as error:
                self._unreadable("change", cursor, error)
                continue
            ids.update(dict.fromkeys(changed))
            loads += busy
        nodes, gone = await self._snapshots(list(ids))
        return Changes(cursor=cursor, nodes=nodes, gone=gone, loads=tuple(loads), is_complete=False)

    async def prune_nodes(self, older_ms: int) -> int:
        """See Store."""
        self._time.check()
        old = await self._servers.run(_PRUNE, (self._keys.nodes_seen,), (older_ms,))
        if old:
            await self._servers.call(self._keys.nodes, "SREM", self._keys.nodes, *old)
        return len(old)

    # --- what is shown of pools

    async def publish_pools(
        self, plan: tuple[PoolRecord, ...] | None, changes: Sequence[PoolChange], ttl_ms: int, *, renew: bool
    ) -> None:
        """See Store."""
        self._time.check()
        for change in changes:
            key = self._keys.pool_members(change.pool)
            for verb, nodes in (("SADD", change.joined), ("SREM", change.left)):
                for start in range(0, len(nodes), _READ_AT_ONCE):
                    await self._servers.call(key, verb, key, *nodes[start : start + _READ_AT_ONCE])
            self._servers.tell(key, "PEXPIRE", key, ttl_ms)
        if plan is None:
            return
        key = self._keys.pool_plan
        known = await self.pool_plan()
        if known is None or known.pools != plan:
            known = PoolPlan(version=1 if known is None else known.version + 1, pools=plan)
            await self._servers.call(key, "SET", key, write_plan(known), "PX", ttl_ms)
        if renew:
            for name in (key, *(self._keys.pool_members(record.name) for record in plan)):
                self._servers.tell(name, "PEXPIRE", name, ttl_ms)

    async def pool_plan(self) -> PoolPlan | None:
        """See Store."""
        key = self._keys.pool_plan
        record = await answer_or(self._servers.call(key, "GET", key), None)
        try:
            return None if record is None else read_plan(record)
        except UnreadableError as error:
            self._unreadable("plan", "pools", error)
            return None

    async def pool_members(self, pool: str) -> frozenset[NodeId]:
        """See Store."""
        key = self._keys.pool_members(pool)
        members = await self._servers.call(key, "SMEMBERS", key)
        return frozenset(NodeId(word.decode("utf-8", "replace")) for word in members)

    # --- how

    async def _everything(self) -> Changes:
        key = self._keys.changes
        last = await self._servers.call(key, "XREVRANGE", key, "+", "-", "COUNT", 1)
        listed = await self._servers.call(self._keys.nodes, "SMEMBERS", self._keys.nodes)
        nodes, gone = await self._snapshots([NodeId(word.decode(errors="replace")) for word in listed])
        cursor = last[0][0].decode() if last else _NOTHING_YET
        return Changes(cursor=cursor, nodes=nodes, gone=gone, loads=(), is_complete=True)

    async def _snapshots(self, ids: list[NodeId]) -> tuple[tuple[NodeSnapshot, ...], tuple[NodeId, ...]]:
        nodes: list[NodeSnapshot] = []
        gone: list[NodeId] = []
        for start in range(0, len(ids), _READ_AT_ONCE):
            part = ids[start : start + _READ_AT_ONCE]
            keys = [self._keys.snapshot(node_id) for node_id in part]
            asked = [self._servers.call(key, "GET", key) for key in keys]
            for node_id, reading in zip(part, asked, strict=True):
                record = await answer_or(reading, b"")
                if record is None:
                    gone.append(node_id)
                    continue
                try:
                    nodes.append(read_snapshot(record))
                except UnreadableError as error:
                    self._unreadable("node", node_id, error)
        return tuple(nodes), tuple(gone)

    async def _is_somebody(self, instance_id: InstanceId) -> bool:
        """Whether it is an instance that lies under this id, and not something that is none of ours."""
        key = self._keys.presence(instance_id)
        try:
            read_instance(await self._servers.call(key, "GET", key) or b"")
        except UnreadableError as error:
            note_unreadable(self._servers.failures, "instance", instance_id, error)
            return False
        return True

    async def _list(self, instance_id: InstanceId) -> None:
        key = self._keys.instances
        self._servers.tell(key, "SADD", key, instance_id)
        self._servers.tell(key, "PEXPIRE", key, _LISTS_TTL_MS)
        await self._measure_time()

    async def _measure_time(self) -> int:
        """What time it is on the server."""
        key = self._keys.instances
        seconds, micros = await self._servers.call(key, "TIME")
        server_ms = int(seconds) * 1000 + int(micros) // 1000
        self._time.set(server_ms)
        return server_ms

    async def _settle(self) -> None:
        """After a start from nothing, give every instance time to write again what it knows."""
        key = self._keys.born
        now_ms = await self._measure_time()
        await self._servers.call(key, "SET", key, now_ms, "NX")
        born = await self._servers.call(key, "GET", key)
        if born is None or not born.isdigit():
            raise StoreDownError(f"{key.decode(errors='replace')} is {born!r}; wanted a time in ms: delete it")
        left_ms = int(born) + _SETTLE_MS - now_ms
        if 0 < left_ms <= _SETTLE_MS:
            await asyncio.sleep(left_ms / 1000)

    async def _forget(self, instance_id: InstanceId) -> None:
        await self._servers.call(self._keys.instances, "SREM", self._keys.instances, instance_id)
        inbox = self._keys.inbox(instance_id)
        await self._servers.call(inbox, "DEL", inbox, self._keys.sessions_of(instance_id))

    def _seen(self, node_ids: Sequence[NodeId]) -> None:
        keys = self._keys
        now_ms = self._time.now_ms()
        self._servers.tell(keys.nodes, "SADD", keys.nodes, *node_ids)
        flat = [word for node_id in node_ids for word in (now_ms, node_id)]
        self._servers.tell(keys.nodes_seen, "ZADD", keys.nodes_seen, *flat)
        for key in (keys.nodes, keys.nodes_seen):
            self._servers.tell(key, "PEXPIRE", key, _LISTS_TTL_MS)

    def _node_keys(self, node_id: NodeId) -> tuple[bytes, bytes, bytes, bytes]:
        keys = self._keys
        return keys.node_owner(node_id), keys.snapshot(node_id), keys.node_presence(node_id), keys.capabilities(node_id)

    def _unreadable(self, what: str, name: str, error: UnreadableError) -> None:
        note_unreadable(self._servers.failures, what, name, error)


def _said(snapshot: NodeSnapshot) -> tuple[Any, ...]:
    unavailable = {name for name, _ in snapshot.unavailable}
    ready = snapshot.node.services - unavailable
    is_present = snapshot.status is not NodeStatus.OFFLINE
    services = [word for service in Service for word in (service, "true" if service in ready else "false")]
    return ("present" if is_present else "absent", *services)


def _place(entry: bytes) -> tuple[int, int]:
    """Where an entry is in its stream."""
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number or 0)
