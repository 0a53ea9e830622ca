"""How does a client's socket become a session, and its messages jobs?"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from dragoman.core.ids import InstanceId, JobId, RequestId, SessionId, TenantId
from dragoman.edge.connection import CLOSE_DONE, CLOSE_POLICY, Connection
from dragoman.edge.parts import Parts, make_session
from dragoman.edge.utterances import Utterances
from dragoman.protocol.codec import FormatError, session_server_codec
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.link import Fault, Link
from dragoman.protocol.requests import CHUNK_SAMPLE_RATE, read_init, read_utterance
from dragoman.protocol.resume_token import digest_of, make_token, session_of
from dragoman.protocol.session_messages import (
    AudioChunk,
    ClientHeartbeat,
    ClientJobCancel,
    ServerHeartbeat,
    SessionClose,
    SessionCloseAck,
    SessionInbound,
    SessionInit,
    SessionInitAck,
    TtsPlayEnded,
    UiEventKind,
    Utterance,
)
from dragoman.routing.mailbox import Mailbox
from dragoman.routing.session import Session
from dragoman.store.interface import Place, Resumed, SessionRecord, StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("session")

PROTOCOL_VERSION: Final = "1.0"
_WARN_EVERY_MS: Final = 1000
_SESSIONS_TIMES: Final = 2
"""Sessions kept, with and without a connection, as a multiple of the connections there may be."""


class SessionConnection(Connection):
    """One client's socket."""

    def __init__(self, parts: Parts, instance_id: InstanceId, *, is_binary: bool) -> None:
        super().__init__(parts.clock, parts.outbound, is_binary=is_binary, limits=parts.server)
        self._parts = parts
        self._instance_id = instance_id
        codec = session_server_codec(is_binary=is_binary)
        self._link: Link[SessionInbound] = Link(codec, SessionInit)
        self._mailbox = Mailbox(self, codec)
        self._utterances = Utterances(parts, self._mailbox)
        self._opening = False
        self._is_confirmed = True
        self.session: Session | None = None

    def opened(self) -> None:
        """See Connection."""
        self._parts.open.sessions.add(self)

    def receive(self, frame: bytes, *, is_text: bool) -> None:
        """See Connection."""
        message = self._link.receive(frame, is_text=is_text)
        if isinstance(message, Fault):
            self._parts.errands.run(self._fault(message), "fault")
            return
        session = self.session
        if isinstance(message, Utterance) and session is not None and message.session_id == session.id:
            # What nearly every message is goes the shortest way.
            self._parts.errands.run(self._utter(session, message), "utterance")
        else:
            self._parts.errands.run(self._handle(message), "session message")

    def lost(self) -> None:
        """See Connection."""
        self._mailbox.is_closed = True
        self._parts.open.sessions.discard(self)
        if self.session is not None:
            self._parts.errands.run(self._detach(self.session), "detach")

    def ponged(self, payload: bytes) -> None:
        """See Connection."""
        if self.session is None:
            return
        if payload.isdigit():
            self._confirm(self.session, int(payload))
        if not self._is_confirmed:
            self._is_confirmed = True
            self._parts.errands.run(self._parts.store.confirm_session(self.session.id), "confirm")

    def check_receipt(self) -> None:
        """Find out, by a ping, whether the client has had what it was sent."""
        serial = None if self.session is None else self.session.unconfirmed_serial
        if serial is not None or not self._is_confirmed:
            self.ping(str(serial or 0).encode())

    def overflow(self) -> None:
        """See Connection."""
        self._mailbox.overflow()

    def end(self, code: int, reason: str) -> None:
        """End the connection from our side; the session can be resumed."""
        self._mailbox.close(code, reason)

    async def cut_pause(self) -> None:
        """Time went by: an utterance in chunks may have ended by a pause."""
        session = self.session
        if session is not None:
            for cut in session.segmenter.pause(self._clock.now_ms()):
                await self._utterances.submit_cut(session, cut)

    async def _handle(self, message: SessionInbound) -> None:
        session = self.session
        if isinstance(message, SessionInit):
            await self._open(message)
            return
        if session is None:
            text = "no session is open on this connection; wanted 'session_init'"
            self._say(Error(code=ErrorCode.INVALID_SESSION, message=text, details={"retryable": False}))
            return
        if isinstance(message, ClientJobCancel):
            await self._cancel(session, message)
            return
        if message.session_id != session.id:
            self._refuse_foreign(message)
            return
        match message:
            case Utterance():
                await self._utter(session, message)
            case AudioChunk():
                await self._chunk(session, message)
            case ClientHeartbeat():
                self._heartbeat(session, message)
            case TtsPlayEnded():
                log.debug("played", session_id=session.id, group_id=message.group_id)
            case SessionClose():
                await self._close(session, message)

    # --- opening

    async def _open(self, init: SessionInit) -> None:
        if self._link.is_open or self._opening:
            await self._fault(self._link.fault("type: 'session_init', but the session is open already"))
            return
        self._opening = True
        try:
            await self._open_or_resume(init)
        except StoreDownError as error:
            text = f"the shared store cannot be used now: {error}"
            details = {"retryable": True, "retry_after_ms": _WARN_EVERY_MS}
            self._say(Error(code=ErrorCode.SCHEDULER_DEPENDENCY_DOWN, message=text, details=details))
        finally:
            self._opening = False

    async def _open_or_resume(self, init: SessionInit) -> None:
        try:
            read_init(init)
        except FormatError as error:
            await self._fault(self._link.fault(str(error)))
            return
        if init.pairing_code:
            text = "pairing_code: nobody has given out such a code; leave it out"
            self._say(Error(code=ErrorCode.INVALID_PAIRING_CODE, message=text, details={"retryable": False}))
            return
        if init.resume_token:
            await self._resume(init, init.resume_token)
            return
        if len(self._parts.router.sessions) >= _SESSIONS_TIMES * self._parts.server.max_sessions:
            text = "too many sessions are open or wait to be resumed"
            details = {"retryable": True, "retry_after_ms": _WARN_EVERY_MS}
            self._say(Error(code=ErrorCode.RATE_LIMITED, message=text, details=details))
            return
        record = SessionRecord(
            session_id=SessionId(f"s-{secrets.token_hex(8)}"),
            tenant_id=None if init.tenant_id is None else TenantId(init.tenant_id),
            init=init,
            trace_id=init.trace_id or secrets.token_hex(16),
        )
        token, digest = make_token(record.session_id)
        await self._parts.store.open_session(record, digest, self._instance_id)
        session = make_session(self._parts.scheduler, self._parts.server, record, Place(), digest)
        self._parts.router.sessions[session.id] = session
        self._begin(session, token, "session created")
        session.attach(self._mailbox, (), None)
        log.info("session opened", session_id=session.id, trace_id=session.trace_id, platform=init.platform)
        if self.is_gone:
            await self._detach(session)

    async def _resume(self, init: SessionInit, token: str) -> None:
        session_id = session_of(token)
        next_token, next_digest = make_token(session_id)
        store, handover = self._parts.store, self._parts.handover
        handover.begin(session_id)
        try:
            resumed = await store.resume_session(session_id, digest_of(token), next_digest, self._instance_id)
            if isinstance(resumed, Resumed):
                handover.note_turn(session_id, next_digest)
                await self._continue(init, resumed, next_token, next_digest)
                return
        finally:
            await handover.end(session_id)
        text = "resume_token: not good, or the session has ended; open a new session without it"
        self._say(Error(code=ErrorCode.INVALID_SESSION, message=text, details={"retryable": False}))
        log.info("session not resumed", why=resumed)

    async def _continue(self, init: SessionInit, resumed: Resumed, token: str, digest: bytes) -> None:
        router, handover = self._parts.router, self._parts.handover
        session = router.sessions.get(resumed.record.session_id)
        if session is not None and resumed.previous not in (None, self._instance_id):
            # It has been elsewhere meanwhile: what is left of it here is old.
            del router.sessions[session.id]
            if session.mailbox is not None:
                session.mailbox.close(CLOSE_DONE, "the session goes on on another connection")
            session = None
        if session is None:
            taken = await handover.take_over(resumed, digest, init.terminals_received)
            if handover.has_lost(taken.session.id, digest):
                self._mailbox.close(CLOSE_DONE, "the session goes on on another connection")
                return
        else:
            taken = handover.go_on(session, resumed, digest)
        session = router.sessions[resumed.record.session_id] = taken.session
        old = session.mailbox
        self._is_confirmed = False
        self._begin(session, token, "session resumed")
        left, had = session.attach(self._mailbox, taken.sent, init.terminals_received)
        self._parts.store.settle(session.id, had)
        if old is not None:
            old.close(CLOSE_DONE, "the session goes on on another connection")
        if left:
            await router.detach(session, left)
        await handover.deliver_unsent(taken)
        if session.segmenter.has_begun:
            self._parts.open.streaming.add(self)
        self.check_receipt()
        log.info("session resumed", session_id=session.id, terminals=len(taken.sent), was_at=resumed.previous)
        if self.is_gone:
            await self._detach(session)

    def _begin(self, session: Session, token: str, text: str) -> None:
        self.session = session
        self._link.is_open = True
        self._say(
            SessionInitAck(
                session_id=session.id,
                message=text,
                trace_id=session.trace_id,
                resume_token=token,
                instance_id=self._instance_id,
                protocol_version=PROTOCOL_VERSION,
                negotiated_audio_format="pcm16",
                negotiated_sample_rate=CHUNK_SAMPLE_RATE,
                negotiated_channel_count=1,
            )
        )

    # --- utterances

    async def _utter(self, session: Session, utterance: Utterance) -> None:
        index = utterance.utterance_index
        if session.results.is_too_far(index):
            text = f"utterance_index: {index}; wanted at most {session.results.next_index + 999}, they go up one by one"
            await self._fault(self._link.fault(text, utterance_index=index))
            return
        try:
            asked = read_utterance(utterance, session.record.init, session.tenant)
        except FormatError as error:
            await self._fault(self._link.fault(str(error), utterance_index=index))
            return
        request_id = RequestId(utterance.request_id if utterance.request_id is not None else str(index))
        await self._utterances.submit(session, utterance, asked, request_id)

    async def _chunk(self, session: Session, chunk: AudioChunk) -> None:
        payload = chunk.payload or b""
        if len(payload) % 2:
            await self._fault(
                self._link.fault(f"payload: {len(payload)} bytes; wanted an even number, PCM16 has 2 a sample")
            )
            return
        segmenter = session.segmenter
        if payload and not segmenter.has_begun:
            self._utterances.tell(session, JobId(""), segmenter.next_index, UiEventKind.INPUT_STARTED, session.trace_id)
        for cut in segmenter.add(chunk.seq, payload, self._clock.now_ms(), is_final=chunk.is_final):
            await self._utterances.submit_cut(session, cut)
        if segmenter.has_begun:
            self._parts.open.streaming.add(self)

    # --- the rest

    async def _cancel(self, session: Session, message: ClientJobCancel) -> None:
        if await self._parts.dispatcher.cancel(session.id, JobId(message.job_id)):
            return
        text = f"job_id: {message.job_id!r} is no job of this session that is under way"
        details = {"job_id": message.job_id, "retryable": False}
        self._say(Error(code=ErrorCode.INVALID_MESSAGE, message=text, details=details))

    def _confirm(self, session: Session, serial: int) -> None:
        # A job that was refused, and asked for again, is under way: its end is owed still.
        live = self._parts.dispatcher.jobs
        jobs = [job_id for job_id in session.confirm(serial) if live.get(job_id) is None]
        if jobs:
            self._parts.store.settle(session.id, jobs)

    def _heartbeat(self, session: Session, message: ClientHeartbeat) -> None:
        if message.terminals_received is not None:
            self._confirm(session, message.terminals_received)
        self._say(ServerHeartbeat(session_id=session.id, timestamp=self._clock.now_ms()))

    async def _close(self, session: Session, message: SessionClose) -> None:
        """The session ends for good: what has not ended is cancelled, and its client told so, before the ack."""
        router = self._parts.router
        await self._parts.rescue.session_over(session.id)
        if session.has_moved:
            await self._parts.rescue.session_over_elsewhere(session.id)
        await router.flush(session)
        router.sessions.pop(session.id, None)
        session.is_closed = True
        self.session = None
        self._link.is_open = False
        await self._parts.store.close_session(session.id, self._instance_id)
        self._say(SessionCloseAck(session_id=session.id))
        self._mailbox.close(CLOSE_DONE, "session closed")
        log.info("session closed", session_id=session.id, why=message.reason[:100])

    async def _detach(self, session: Session) -> None:
        parked = session.detach(self._mailbox, self._clock.now_ms())
        if parked is None:
            return
        try:
            await self._parts.router.detach(session, parked)
        except StoreDownError:
            # It is kept here: when the store is back, what is owed is found in the jobs.
            return
        log.info("session without connection", session_id=session.id, terminals=len(parked))

    def _refuse_foreign(self, message: Utterance | AudioChunk | ClientHeartbeat | TtsPlayEnded | SessionClose) -> None:
        text = f"session_id: {message.session_id!r} is not the session of this connection"
        self._say(Error(code=ErrorCode.INVALID_SESSION, message=text, details={"retryable": False}))

    async def _fault(self, fault: Fault) -> None:
        self._parts.metrics.bad_messages.labels("session").inc()
        if fault.error is None:
            return
        index = (fault.error.details or {}).get("utterance_index")
        if self.session is not None and isinstance(index, int):
            due_ms = await self._parts.router.deliver_error(self.session.id, index, fault.error)
            self._parts.dispatcher.watch_results(self.session.id, due_ms)
        else:
            self._say(fault.error)
        if fault.is_last:
            self._mailbox.close(CLOSE_POLICY, "too many bad messages")

    def _say(self, message: msgspec.Struct) -> None:
        self._mailbox.post(message)
