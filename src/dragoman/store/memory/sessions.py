"""How are sessions remembered in one process, and what are they owed?"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, JobId, SessionId
from dragoman.store.interface import ANYBODY, NOBODY, NoResume, Owed, Parked, Place, Resumed, SessionRecord


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    token: bytes
    owner: InstanceId
    previous_token: bytes | None = None
    parked: list[Parked] = field(default_factory=list)
    owed: dict[JobId, Owed] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    forget_ms: int | None = None


class MemorySessions:
    """See Sessions."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[SessionId, _Session] = {}

    async def open_session(self, record: SessionRecord, token_digest: bytes, owner: InstanceId) -> None:
        """See Store."""
        self._sessions[record.session_id] = _Session(record, token_digest, owner)

    async def resume_session(
        self, session_id: SessionId, token_digest: bytes, next_digest: bytes, owner: InstanceId
    ) -> Resumed | NoResume:
        """See Store."""
        session = self._find_session(session_id)
        if session is None:
            return NoResume.UNKNOWN
        good = (session.token, session.previous_token)
        if not any(token and hmac.compare_digest(token, token_digest) for token in good):
            return NoResume.WRONG_TOKEN
        session.previous_token, session.token = token_digest, next_digest
        session.forget_ms = None
        previous, session.owner = session.owner, owner
        parked, session.parked = tuple(session.parked), []
        return Resumed(
            record=session.record,
            parked=parked,
            owed=_in_order(session.owed),
            place=session.place,
            previous=previous,
        )

    async def confirm_session(self, session_id: SessionId) -> None:
        """See Store."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.previous_token = None

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
        session = self._find_session(session_id)
        if session is None or (owner is not None and session.owner != owner):
            return False
        if owner is None and seen not in (ANYBODY, session.owner or NOBODY):
            return False
        session.parked.extend(parked)
        until_ms = self._clock.now_ms() + keep_ms
        if owner is None and session.forget_ms is not None:
            until_ms = min(until_ms, session.forget_ms)
        session.forget_ms = until_ms
        return True

    async def restore_session(
        self, record: SessionRecord, token_digest: bytes, owner: InstanceId, place: Place
    ) -> bool:
        """See Store."""
        session = self._find_session(record.session_id)
        if session is None:
            session = self._sessions[record.session_id] = _Session(record, token_digest, owner)
            session.place = place
        return session.owner == owner

    async def has_parked(self, session_id: SessionId) -> bool:
        """See Store."""
        session = self._find_session(session_id)
        return session is not None and bool(session.parked)

    async def session_owner(self, session_id: SessionId) -> InstanceId | None:
        """See Store."""
        session = self._find_session(session_id)
        return None if session is None else session.owner

    async def owed_jobs(self, session_id: SessionId) -> tuple[Owed, ...]:
        """See Store."""
        session = self._find_session(session_id)
        return () if session is None else _in_order(session.owed)

    async def close_session(self, session_id: SessionId, owner: InstanceId) -> None:
        """See Store."""
        session = self._sessions.get(session_id)
        if session is not None and session.owner == owner:
            del self._sessions[session_id]

    async def sessions_of(self, instance_id: InstanceId) -> tuple[SessionId, ...]:
        """See Store."""
        return tuple(session_id for session_id, held in self._sessions.items() if held.owner == instance_id)

    def owe(self, session_id: SessionId, job_id: JobId, index: int) -> None:
        """See Store."""
        session = self._sessions.get(session_id)
        if session is not None and job_id not in session.owed:
            session.owed[job_id] = Owed(job_id, index, 0)

    def note_place(self, session_id: SessionId, place: Place, sent: Sequence[Owed]) -> None:
        """See Store."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.place = place
            for owed in sent:
                session.owed[owed.job_id] = owed

    def settle(self, session_id: SessionId, job_ids: Sequence[JobId]) -> None:
        """See Store."""
        session = self._sessions.get(session_id)
        if session is not None:
            for job_id in job_ids:
                session.owed.pop(job_id, None)

    def _sweep_sessions(self, now_ms: int) -> None:
        gone = [key for key, held in self._sessions.items() if held.forget_ms is not None and held.forget_ms <= now_ms]
        for session_id in gone:
            del self._sessions[session_id]

    def _find_session(self, session_id: SessionId) -> _Session | None:
        session = self._sessions.get(session_id)
        if session is not None and session.forget_ms is not None and session.forget_ms <= self._clock.now_ms():
            return None
        return session


def _in_order(owed: dict[JobId, Owed]) -> tuple[Owed, ...]:
    return tuple(sorted(owed.values(), key=lambda one: (one.index, one.job_id)))
