"""How do sessions live on the server? A hash for each: its record, its tokens, what it is owed and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from dragoman.core.ids import InstanceId, JobId, SessionId
from dragoman.store.interface import (
    ANYBODY,
    NoResume,
    Owed,
    Parked,
    Place,
    Resumed,
    SessionRecord,
)
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.poison import Complain, note_unreadable
from dragoman.store.redis.records import (
    SCHEMA,
    UnreadableError,
    fields_of,
    read_owed,
    read_resumed,
    write_owed,
    write_session,
    write_terminal,
)
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import Servers

_SESSIONS_TTL_MS: Final = 86_400_000
"""The list of an instance's sessions outlives it by so much, if no other instance is there to see to it."""

_OPEN = load_script("open_session")
_RESUME = load_script("resume_session")
_PARK = load_script("park")
_RESTORE = load_script("restore_session")
_NOTE = load_script("note")
_UNCLAIM = load_script("unclaim")

SCRIPTS = (_OPEN, _RESUME, _PARK, _RESTORE, _NOTE)


class RedisSessions:
    """See Sessions."""

    def __init__(self, servers: Servers, keys: Keys, time: ServerTime, *, owner_ttl_ms: int, keep_ms: int) -> None:
        self._servers = servers
        self._keys = keys
        self._time = time
        self._owner_ttl_ms = owner_ttl_ms
        self._session_ttl_ms = owner_ttl_ms + keep_ms
        """Of a session with a connection, between two renewals: should its instance die, it can be resumed."""

    async def open_session(self, record: SessionRecord, token_digest: bytes, owner: InstanceId) -> None:
        """See Store."""
        self._time.check()
        self._list_session(owner, record.session_id)
        await self._servers.run(_OPEN, self._both(record.session_id), self._whole(record, token_digest, owner, Place()))

    async def resume_session(
        self, session_id: SessionId, token_digest: bytes, next_digest: bytes, owner: InstanceId
    ) -> Resumed | NoResume:
        """See Store."""
        self._time.check()
        self._list_session(owner, session_id)
        arguments = (SCHEMA, token_digest, next_digest, owner, self._owner_ttl_ms, self._session_ttl_ms)
        answer = await self._servers.run(_RESUME, self._both(session_id), arguments)
        resumed = self._read_resumed(session_id, answer)
        if isinstance(resumed, NoResume):
            if await self.session_owner(session_id) != owner:
                self._unlist_session(owner, session_id)
            return resumed
        # Again, for another try at the same time that was refused takes it off the list.
        self._list_session(owner, session_id)
        if resumed.previous is not None and resumed.previous != owner:
            self._unlist_session(resumed.previous, session_id)
        return resumed

    async def confirm_session(self, session_id: SessionId) -> None:
        """See Store."""
        self._time.check()
        key = self._keys.session(session_id)
        await self._servers.call(key, "HDEL", key, "previous")

    async def park_terminals(
        self,
        session_id: SessionId,
        owner: InstanceId | None,
        parked: Sequence[Parked],
        keep_ms: int,
        *,
        seen: str = ANYBODY,
    ) -> bool:
        """See Store."""
        self._time.check()
        flat = [word for item in parked for word in (item.serial, write_terminal(item.message))]
        answer = await self._servers.run(_PARK, self._both(session_id), (owner or "", keep_ms, seen, *flat))
        return bool(answer == b"parked")

    async def restore_session(
        self, record: SessionRecord, token_digest: bytes, owner: InstanceId, place: Place
    ) -> bool:
        """See Store."""
        self._time.check()
        self._list_session(owner, record.session_id)
        arguments = self._whole(record, token_digest, owner, place)
        answer = await self._servers.run(_RESTORE, self._both(record.session_id), arguments)
        if answer != b"mine":
            self._unlist_session(owner, record.session_id)
            return False
        return True

    async def has_parked(self, session_id: SessionId) -> bool:
        """See Store."""
        self._time.check()
        key = self._keys.session(session_id)
        [number] = await self._servers.call(key, "HMGET", key, "parkings")
        return number is not None

    async def session_owner(self, session_id: SessionId) -> InstanceId | None:
        """See Store."""
        self._time.check()
        key = self._keys.session_owner(session_id)
        owner = await self._servers.call(key, "GET", key)
        return None if owner is None else InstanceId(owner.decode("utf-8", "replace"))

    async def owed_jobs(self, session_id: SessionId) -> tuple[Owed, ...]:
        """See Store. What cannot be read counts as missing."""
        self._time.check()
        key = self._keys.session(session_id)
        fields = fields_of(await self._servers.call(key, "HGETALL", key))
        return read_owed(fields, self._complain(session_id))

    async def close_session(self, session_id: SessionId, owner: InstanceId) -> None:
        """See Store."""
        self._time.check()
        self._unlist_session(owner, session_id)
        await self._servers.run(_UNCLAIM, tuple(reversed(self._both(session_id))), (owner,))

    async def sessions_of(self, instance_id: InstanceId) -> tuple[SessionId, ...]:
        """See Store."""
        self._time.check()
        key = self._keys.sessions_of(instance_id)
        listed = await self._servers.call(key, "SMEMBERS", key)
        return tuple(SessionId(word.decode("utf-8", "replace")) for word in listed)

    def owe(self, session_id: SessionId, job_id: JobId, index: int) -> None:
        """See Store."""
        owed = (f"owed:{job_id}".encode("utf-8", "surrogatepass"), write_owed(Owed(job_id, index, 0)))
        self._note(session_id, "new", *owed)

    def note_place(self, session_id: SessionId, place: Place, sent: Sequence[Owed]) -> None:
        """See Store."""
        fields: list[Any] = list(_standing(place))
        for owed in sent:
            fields += (f"owed:{owed.job_id}".encode("utf-8", "surrogatepass"), write_owed(owed))
        self._note(session_id, "set", *fields)

    def settle(self, session_id: SessionId, job_ids: Sequence[JobId]) -> None:
        """See Store."""
        if job_ids and self._time.is_valid:
            key = self._keys.session(session_id)
            fields = [f"owed:{job_id}".encode("utf-8", "surrogatepass") for job_id in job_ids]
            self._servers.tell(key, "HDEL", key, *fields)

    # --- how

    def _read_resumed(self, session_id: SessionId, answer: bytes | list[bytes]) -> Resumed | NoResume:
        """What is there of a session. One that cannot be read counts as unknown; a part of it, as missing."""
        if isinstance(answer, bytes):
            if answer != b"unreadable":
                return NoResume(answer.decode())
            self._complain(session_id)(UnreadableError(f"wanted schema {SCHEMA!r}"))
            return NoResume.UNKNOWN
        try:
            return read_resumed(fields_of(answer[1:]), answer[0], self._complain(session_id))
        except UnreadableError as error:
            self._complain(session_id)(error)
            return NoResume.UNKNOWN

    def _note(self, session_id: SessionId, how: str, *fields: Any) -> None:
        # Nobody waits for an answer, so who may not act just says nothing.
        if self._time.is_valid:
            self._servers.tell_script(_NOTE, (self._keys.session(session_id),), (how, *fields))

    def _complain(self, session_id: SessionId) -> Complain:
        return partial(note_unreadable, self._servers.failures, "session", session_id)

    def _both(self, session_id: SessionId) -> tuple[bytes, bytes]:
        return self._keys.session(session_id), self._keys.session_owner(session_id)

    def _whole(
        self, record: SessionRecord, token_digest: bytes, owner: InstanceId, place: Place
    ) -> tuple[str | bytes | int, ...]:
        fields = ("v", SCHEMA, "record", write_session(record), "token", token_digest)
        return (owner, self._owner_ttl_ms, self._session_ttl_ms, *fields, *_standing(place))

    def _list_session(self, owner: InstanceId, session_id: SessionId) -> None:
        key = self._keys.sessions_of(owner)
        self._servers.tell(key, "SADD", key, session_id)
        self._servers.tell(key, "PEXPIRE", key, _SESSIONS_TTL_MS)

    def _unlist_session(self, owner: InstanceId, session_id: SessionId) -> None:
        key = self._keys.sessions_of(owner)
        self._servers.tell(key, "SREM", key, session_id)


def _standing(place: Place) -> tuple[str | int, ...]:
    return ("serial", place.serial, "next", place.next_index, "cut", place.next_cut, "seq", place.last_seq)
