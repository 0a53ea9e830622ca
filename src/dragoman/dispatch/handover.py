"""How does a session go on here that another instance held?

What the client is owed is found in the store: what was parked for it, and the jobs of which it is not known to have had
the end. An instance that is alive also gives up what it has in memory. One that died took with it only what the store
can tell again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId, JobId, SessionId
from dragoman.core.lifecycle import ENDED
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.protocol.letters import Yield, Yielded
from dragoman.protocol.session_messages import MissingResult, Terminal
from dragoman.routing.session import Session, index_of, job_of
from dragoman.store.interface import Owed, Parked, Place, Resumed, SessionRecord
from dragoman.telemetry.logs import get_logger

log = get_logger("session")

_PATIENCE_MS: Final = 1000
"""How long one waits for the instance that held a session before."""
CLOSE_DONE: Final = 1000

MakeSession = Callable[[SessionRecord, Place, bytes], Session]


class _NotEnded(Enum):
    """How a job stands that has not ended."""

    UNDER_WAY = auto()
    UNKNOWN = auto()
    """It never became a job: the instance died first. Its client has heard nothing of it, and asks again."""


class TakenOver(Struct, frozen=True):
    """A session that goes on here."""

    session: Session
    sent: tuple[Parked, ...]
    """What was on its way before, and perhaps not read."""
    unsent: tuple[tuple[JobId, int, Terminal], ...]
    """What ended and was not on its way yet: job, utterance index, message."""


class Handover:
    """Sessions that come from another instance, or go to one."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, make_session: MakeSession) -> None:
        self._dispatcher = dispatcher
        self._router = dispatcher.router
        self._store = dispatcher.store
        self._clock = clock
        self._make_session = make_session
        self._asked: dict[SessionId, asyncio.Future[Yielded]] = {}
        self._coming: Counter[SessionId] = Counter()
        """Sessions that are on their way here, by how many connections ask for each."""
        self._turns: dict[SessionId, bytes] = {}
        """Of these, for which token the store gave each last."""
        self._wanted: dict[SessionId, InstanceId] = {}
        """Of these, who wants them already."""

    async def take_over(self, resumed: Resumed, digest: bytes, received: int | None) -> TakenOver:
        """Go on with a session that is not held here. `received`: how many terminal messages the client has had."""
        session_id = resumed.record.session_id
        given = await self._ask(resumed.previous, session_id)
        place = resumed.place
        if given is not None and given.is_known:
            place = Place(given.serial, given.next_index, given.next_cut, given.last_seq)
        sent = {parked.serial: parked for parked in resumed.parked if parked.serial}
        unsent = [(index_of(it.message), it.message) for it in resumed.parked if not it.serial]
        if given is not None:
            sent |= {serial: Parked(serial=serial, message=message) for serial, message in given.unconfirmed}
            unsent += given.held
        session = self._make_session(resumed.record, place, digest)
        session.has_moved = True
        if given is not None and given.audio:
            session.segmenter.go_on(given.next_cut, given.last_seq, given.audio, self._clock.now_ms())
        known = {job_of(message) for _, message in unsent}
        missing = [
            owed
            for owed in resumed.owed
            if owed.serial not in sent and (owed.serial > (received or 0) if owed.serial else owed.job_id not in known)
        ]
        found = [(job_of(message) or JobId(""), index, message) for index, message in unsent]
        for owed, end in zip(missing, await asyncio.gather(*map(self._end_of, missing)), strict=True):
            if end is _NotEnded.UNDER_WAY:
                session.results.begin(owed.index)
            elif end is _NotEnded.UNKNOWN:
                continue
            elif owed.serial:
                sent[owed.serial] = Parked(serial=owed.serial, message=end)
            else:
                found.append((owed.job_id, owed.index, end))
        found.sort(key=lambda item: item[1])
        return TakenOver(session, tuple(sent.values()), tuple(found))

    def begin(self, session_id: SessionId) -> None:
        """A session may come here: nothing that is for it must miss it."""
        self._coming[session_id] += 1
        self._router.expect(session_id)

    def note_turn(self, session_id: SessionId, digest: bytes) -> None:
        """The store gave the session to who has this token next. Several may try at once: the last one has it."""
        self._turns[session_id] = digest

    def has_lost(self, session_id: SessionId, digest: bytes) -> bool:
        """Whether the session was given to another connection meanwhile."""
        return self._turns.get(session_id, digest) != digest

    async def end(self, session_id: SessionId) -> None:
        """The session is here, or does not come. What waited for that goes on."""
        self._coming[session_id] -= 1
        if self._coming[session_id]:
            return
        del self._coming[session_id]
        self._turns.pop(session_id, None)
        for job_id, index, terminal in self._router.arrived(session_id):
            due_ms = await self._router.deliver(session_id, job_id, index, terminal)
            self._dispatcher.watch_results(session_id, due_ms)
        wanted_by = self._wanted.pop(session_id, None)
        if wanted_by is not None:
            await self.give_up(session_id, wanted_by)

    def go_on(self, session: Session, resumed: Resumed, digest: bytes) -> TakenOver:
        """Go on with a session that is held here."""
        session.token_digest = digest
        sent = tuple(parked for parked in resumed.parked if parked.serial)
        unsent = tuple(
            (job_of(it.message) or JobId(""), index_of(it.message), it.message)
            for it in resumed.parked
            if not it.serial
        )
        return TakenOver(session, sent, unsent)

    async def deliver_unsent(self, taken: TakenOver) -> None:
        """Let what had ended go out, now that the session has a connection."""
        for job_id, index, terminal in taken.unsent:
            due_ms = await self._router.deliver(taken.session.id, job_id, index, terminal)
            self._dispatcher.watch_results(taken.session.id, due_ms)

    async def give_up(self, session_id: SessionId, to: InstanceId) -> None:
        """A session goes on at another instance: it gets what is held of it here."""
        nothing = Yielded(session_id, is_known=False)
        if self._router.is_expected(session_id):
            # It is not here yet, and those who want it must not wait for each other in a ring.
            self._wanted[session_id] = to
            self._router.outbox.post(to, nothing)
            return
        owner = await self._store.session_owner(session_id)
        if owner == self._router.me:
            log.info("session has come back meanwhile", session_id=session_id, wanted_by=to)
            self._router.outbox.post(to, nothing)
            return
        session = self._router.sessions.pop(session_id, None)
        # It may have gone on from there already.
        self._router.moved(session_id, owner or to)
        if session is None:
            self._router.outbox.post(to, nothing)
            return
        unconfirmed, held = session.give_up()
        last_seq, audio = session.segmenter.give_up()
        place = session.place
        self._router.outbox.post(
            to,
            Yielded(
                session_id,
                is_known=True,
                serial=place.serial,
                next_index=place.next_index,
                next_cut=place.next_cut,
                unconfirmed=tuple((it.serial, it.message) for it in unconfirmed),
                held=tuple(held),
                last_seq=last_seq,
                audio=audio,
            ),
        )
        if session.mailbox is not None:
            session.mailbox.close(CLOSE_DONE, "the session goes on on another connection")
        log.info("session went to another instance", session_id=session_id, to=to)

    def given(self, note: Yielded) -> None:
        """Another instance gave up what it held of a session."""
        asked = self._asked.get(note.session_id)
        if asked is not None and not asked.done():
            asked.set_result(note)

    async def _ask(self, previous: InstanceId | None, session_id: SessionId) -> Yielded | None:
        if previous is None or previous == self._router.me or previous not in self._router.peers:
            return None
        loop = asyncio.get_running_loop()
        asked = self._asked[session_id] = loop.create_future()
        self._router.outbox.post(previous, Yield(session_id))
        try:
            done, _ = await asyncio.wait([asked], timeout=_PATIENCE_MS / 1000)
            if not done:
                log.warning("session was not given up in time", session_id=session_id, by=previous)
                return None
            given: Yielded = asked.result()
            return given
        finally:
            if self._asked.get(session_id) is asked:
                del self._asked[session_id]

    async def _end_of(self, owed: Owed) -> Terminal | _NotEnded:
        """How a job ended."""
        if self._dispatcher.jobs.get(owed.job_id) is not None:
            return _NotEnded.UNDER_WAY
        job = await self._store.read_job(owed.job_id)
        if job is not None and job.state not in ENDED:
            return _NotEnded.UNDER_WAY
        if job is not None and job.terminal is not None:
            return job.terminal
        if job is None and not owed.serial:
            return _NotEnded.UNKNOWN
        return MissingResult(
            session_id="",
            utterance_index=owed.index,
            reason="result_expired",
            created_at_ms=self._clock.now_ms(),
            trace_id=None,
        )
