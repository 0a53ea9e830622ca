"""How do jobs live on the server? As a hash each.

A job and the slots of nodes are on different servers of a Redis Cluster, so a step that touches both is two scripts, in
an order that is safe to break off at any point: a slot is taken before a job relies on it, and given back after. What
a crash between the two leaves behind is a hold that nobody renews, or that the audit of slots finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, JobId, NodeId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import ENDED, SOURCES, JobState
from dragoman.protocol.session_messages import Terminal
from dragoman.store.interface import (
    AllFull,
    Job,
    Known,
    Moved,
    Placement,
    Reserved,
    Restored,
    Stale,
    StoreDownError,
)
from dragoman.store.redis import slots
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.poison import note_unreadable
from dragoman.store.redis.records import (
    SCHEMA,
    UnreadableError,
    fields_of,
    read_job,
    write_request,
    write_terminal,
)
from dragoman.store.redis.retained import RetainedResults
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import Servers
from dragoman.store.redis.slots import RedisSlots

_MOVED: Final = Moved()

_OPEN = load_script("open_job")
_MOVE = load_script("move_job")
_ADOPT = load_script("adopt_job")
_RESTORE = load_script("restore_job")
_NOTE = load_script("note")

SCRIPTS = (*slots.SCRIPTS, _OPEN, _MOVE, _ADOPT, _RESTORE, _NOTE)


def _words(states: frozenset[JobState]) -> str:
    return " " + " ".join(sorted(states)) + " "


_SOURCES: Final = {to: _words(states) for to, states in SOURCES.items()}
_ENDED: Final = _words(ENDED)
_CREATED: Final = _words(frozenset({JobState.CREATED}))
_ANY: Final = _words(frozenset(JobState))


class RedisJobs(RedisSlots):
    """See Jobs."""

    def __init__(
        self, servers: Servers, keys: Keys, clock: Clock, time: ServerTime, *, job_ttl_ms: int, retained_bytes_max: int
    ) -> None:
        RedisSlots.__init__(self, servers, keys, time)
        self._clock = clock
        self._job_ttl_ms = job_ttl_ms
        self._retained = RetainedResults(retained_bytes_max)

    async def open_job(
        self, request: JobRequest, owner: InstanceId, ranking: Sequence[Candidate], lease_ms: int
    ) -> Known | Placement:
        """See Store."""
        job_id = request.job_id
        whole = (*("v", SCHEMA, "owner", owner, "session", request.session_id), "request", write_request(request))
        placement = await self._reserve(job_id, 0, ranking, lease_ms) if ranking else AllFull(())
        where: tuple[Any, ...] = ("state", JobState.CREATED, "attempt", 0, "node", "")
        if isinstance(placement, Reserved):
            where = ("state", JobState.RESERVED, "attempt", 1, "node", placement.node_id)
        try:
            self._time.check()
            answer = await self._servers.run(_OPEN, (self._keys.job(job_id),), (self._job_ttl_ms, *whole, *where))
        except Exception:
            self._give_back(job_id, placement)
            raise
        if answer == b"new":
            return placement
        self._give_back(job_id, placement)
        return Known(self._read_job(job_id, fields_of(answer)))

    async def reserve_slot(
        self, job_id: JobId, attempt: int, ranking: Sequence[Candidate], lease_ms: int
    ) -> Placement | Stale:
        """See Store."""
        placement = await self._reserve(job_id, attempt, ranking, lease_ms) if ranking else AllFull(())
        if isinstance(placement, AllFull):
            return await self._stale_unless(job_id, attempt) or placement
        try:
            moved = await self._move(
                job_id, attempt, None, JobState.RESERVED, attempt_after=attempt + 1, node_after=placement.node_id
            )
        except Exception:
            self._give_back(job_id, placement)
            raise
        if isinstance(moved, Stale):
            self._give_back(job_id, placement)
            return moved
        return placement

    async def advance_job(self, job_id: JobId, attempt: int, node_id: NodeId, to: JobState) -> Moved | Stale:
        """See Store."""
        moved = await self._move(job_id, attempt, node_id, to)
        return moved if isinstance(moved, Stale) else _MOVED

    async def requeue_job(self, job_id: JobId, attempt: int, *, release: bool) -> Moved | Stale:
        """See Store."""
        moved = await self._move(job_id, attempt, None, JobState.CREATED, node_after="")
        if isinstance(moved, Stale):
            return moved
        self._leave_node(moved, job_id, attempt, release=release)
        return _MOVED

    async def end_job(
        self,
        job_id: JobId,
        attempt: int,
        node_id: NodeId | None,
        to: JobState,
        terminal: Terminal,
        *,
        release: bool,
        keep_ms: int,
    ) -> Moved | Stale:
        """See Store."""
        written = write_terminal(terminal)
        self._time.check()
        if release and node_id is not None:
            # The node is done with it whatever comes of the move, so this need not wait for that.
            self._leave_node(node_id, job_id, attempt, release=True)
        moved = await self._move(job_id, attempt, node_id, to, node_after="", terminal=written, ttl_ms=max(keep_ms, 0))
        if isinstance(moved, Stale):
            return moved
        if not (release and node_id is not None):
            self._leave_node(moved, job_id, attempt, release=release)
        for worn_id, worn in self._retained.add(job_id, terminal, len(written), self._clock.now_ms(), keep_ms):
            self._servers.tell_script(_NOTE, (self._keys.job(worn_id),), ("set", "terminal", write_terminal(worn)))
        return _MOVED

    async def read_job(self, job_id: JobId) -> Job | None:
        """See Store. One that cannot be read counts as missing."""
        self._time.check()
        key = self._keys.job(job_id)
        flat = await self._servers.call(key, "HGETALL", key)
        return self._read_or_none(job_id, flat)

    async def adopt_job(self, job_id: JobId, dead: InstanceId, owner: InstanceId) -> Job | None:
        """See Store."""
        self._time.check()
        arguments = (SCHEMA, dead, owner, _ENDED, self._job_ttl_ms)
        flat = await self._servers.run(_ADOPT, (self._keys.job(job_id),), arguments)
        return self._read_or_none(job_id, flat)

    async def restore_job(
        self, request: JobRequest, owner: InstanceId, state: JobState, attempt: int, node_id: NodeId | None
    ) -> Restored:
        """See Store."""
        self._time.check()
        fields = (
            *("v", SCHEMA, "owner", owner, "session", request.session_id, "request", write_request(request)),
            *("state", state, "attempt", attempt, "node", node_id or ""),
        )
        opened_for_ms = max(0, self._clock.now_ms() - request.accepted_ms)
        # Within an attempt the owner can only be ahead by its failure.
        not_behind = _CREATED if state is JobState.CREATED else _ANY
        arguments = (owner, attempt, not_behind, _ENDED, self._job_ttl_ms, opened_for_ms, *fields)
        answer = await self._servers.run(_RESTORE, (self._keys.job(request.job_id),), arguments)
        return Restored(answer.decode())

    # --- how

    async def _move(
        self,
        job_id: JobId,
        attempt: int,
        node_id: NodeId | None,
        to: JobState,
        *,
        attempt_after: int | None = None,
        node_after: str = "=",
        terminal: bytes | None = None,
        ttl_ms: int | None = None,
    ) -> str | Stale:
        """Move a job; answers the node that it was at ("": none)."""
        self._time.check()
        arguments: tuple[Any, ...] = (
            _SOURCES[to],
            attempt,
            "*" if node_id is None else node_id,
            to,
            attempt if attempt_after is None else attempt_after,
            node_after,
            self._job_ttl_ms if ttl_ms is None else ttl_ms,
        )
        if terminal is not None:
            arguments = (*arguments, terminal)
        answer = await self._servers.run(_MOVE, (self._keys.job(job_id),), arguments)
        if answer[0] == b"moved":
            return str((answer[1] or b"").decode(errors="replace"))
        return self._stale(job_id, answer[1], answer[2])

    async def _stale_unless(self, job_id: JobId, attempt: int) -> Stale | None:
        key = self._keys.job(job_id)
        stale = self._stale(job_id, *await self._servers.call(key, "HMGET", key, "state", "attempt"))
        is_stale = stale.attempt != attempt or stale.state not in SOURCES[JobState.RESERVED]
        return stale if is_stale else None

    def _stale(self, job_id: JobId, state: bytes | None, attempt: bytes | int | None) -> Stale:
        """Where a job is. One that cannot be read counts as missing."""
        if not state:
            return Stale(None, 0)
        try:
            return Stale(JobState(state.decode()), int(attempt or b""))
        except ValueError as error:
            note_unreadable(self._servers.failures, "job", job_id, error)
            return Stale(None, 0)

    def _read_job(self, job_id: JobId, fields: dict[bytes, bytes]) -> Job:
        """A job that somebody asks for under its id. Raises StoreDownError when it cannot be read."""
        try:
            return read_job(job_id, fields, self._time.ours_ms)
        except UnreadableError as error:
            note_unreadable(self._servers.failures, "job", job_id, error)
            raise StoreDownError(f"the record of {job_id} cannot be read: {error}") from error

    def _read_or_none(self, job_id: JobId, flat: list[bytes]) -> Job | None:
        if not flat:
            return None
        try:
            return self._read_job(job_id, fields_of(flat))
        except StoreDownError:
            return None
