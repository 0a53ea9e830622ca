"""How does what a client says become a job, and what is the client told of it at once?"""

from __future__ import annotations

from typing import Final

import msgspec

from dragoman.core.ids import JobId, RequestId, TraceId, derive_job_id
from dragoman.core.job import PRIORITY_DEFAULT, JobRequest
from dragoman.core.lifecycle import JobState
from dragoman.dispatch.outcomes import Accepted, AlreadyKnown, Refused
from dragoman.edge.parts import Parts
from dragoman.protocol.fields import Error
from dragoman.protocol.requests import CHUNK_SAMPLE_RATE, Asked, read_utterance
from dragoman.protocol.segmentation import Cut, CutReason
from dragoman.protocol.session_messages import (
    Backpressure,
    Terminal,
    UiEvent,
    UiEventKind,
    Utterance,
    readdressed,
)
from dragoman.routing.mailbox import Mailbox
from dragoman.routing.session import Session

_WARN_EVERY_MS: Final = 1000
_WARN_AT: Final = 0.8
"""From which part of a limit on a client is told to slow down."""

_EVENT_OF: Final = {
    JobState.DISPATCHED: UiEventKind.DISPATCHED,
    JobState.ACCEPTED: UiEventKind.NODE_ACCEPTED,
    JobState.RUNNING: UiEventKind.NODE_ACCEPTED,
}


class Utterances:
    """The utterances of one connection."""

    def __init__(self, parts: Parts, mailbox: Mailbox) -> None:
        self._parts = parts
        self._mailbox = mailbox

    async def submit(self, session: Session, utterance: Utterance, asked: Asked, request_id: RequestId) -> None:
        """Make a job of an utterance, unless there is one."""
        await self._submit(session, self._request(session, utterance, asked, request_id))

    async def submit_cut(self, session: Session, cut: Cut) -> None:
        """Make a job of an utterance that was cut out of a stream."""
        init = session.record.init
        whole = Utterance(
            session_id=session.id,
            utterance_index=cut.index,
            manual_cut=cut.reason is CutReason.FINAL,
            src_lang=init.src_lang,
            tgt_lang=init.tgt_lang,
            audio=cut.audio,
            audio_format="pcm16",
            sample_rate=CHUNK_SAMPLE_RATE,
        )
        asked = read_utterance(whole, init, session.tenant)
        speech = msgspec.structs.replace(
            asked.speech,
            is_pause_triggered=cut.reason is CutReason.PAUSE,
            is_timeout_triggered=cut.reason is CutReason.DURATION,
        )
        request_id = RequestId(f"chunks-{cut.index}")
        request = self._request(session, whole, Asked(speech, asked.need), request_id)
        self._parts.store.note_place(session.id, session.place, ())
        self.tell(session, request.job_id, cut.index, UiEventKind.INPUT_ENDED, session.trace_id)
        await self._submit(session, request)

    def tell(self, session: Session, job_id: JobId, index: int, event: UiEventKind, trace_id: str) -> None:
        """Tell the client how far an utterance has come."""
        self._mailbox.post(
            UiEvent(
                trace_id=trace_id,
                session_id=session.id,
                job_id=job_id,
                utterance_index=index,
                event=event,
                status="ok",
            )
        )

    # --- how

    def _request(self, session: Session, utterance: Utterance, asked: Asked, request_id: RequestId) -> JobRequest:
        now_ms = self._parts.clock.now_ms()
        return JobRequest(
            job_id=derive_job_id(session.tenant, session.id, request_id),
            session_id=session.id,
            request_id=request_id,
            utterance_index=utterance.utterance_index,
            trace_id=TraceId(utterance.trace_id or session.trace_id),
            need=asked.need,
            speech=asked.speech,
            accepted_ms=now_ms,
            deadline_ms=None if utterance.deadline_ms is None else now_ms + utterance.deadline_ms,
            tenant_id=session.tenant,
            priority=PRIORITY_DEFAULT if utterance.priority is None else utterance.priority,
        )

    async def _submit(self, session: Session, request: JobRequest) -> None:
        dispatcher = self._parts.dispatcher
        was_told = not session.is_news(request.job_id)
        match await dispatcher.submit(request):
            case Accepted(_, state):
                if state is JobState.CREATED or session.results.open_count > _WARN_AT * 1000:
                    self._warn(session)
            case AlreadyKnown(job_id) if not was_told and not session.is_news(job_id):
                pass  # its end was told while this was looked up, and answers this too
            case AlreadyKnown(job_id, state, terminal):
                await self._repeat(session, request, job_id, state, terminal)
            case Refused(error):
                await dispatcher.deliver_error(request, error)

    async def _repeat(
        self, session: Session, request: JobRequest, job_id: JobId, state: JobState, terminal: Terminal | None
    ) -> None:
        """The same request again: its job's id while it runs, its end again once it ended."""
        index = request.utterance_index
        if terminal is None:
            event = _EVENT_OF.get(state, UiEventKind.INPUT_ENDED)
            self.tell(session, job_id, index, event, request.trace_id)
            return
        router, dispatcher = self._parts.router, self._parts.dispatcher
        again = readdressed(terminal, index)
        if isinstance(again, Error):
            await dispatcher.deliver_error(request, again)
        else:
            dispatcher.watch_results(session.id, await router.deliver_result(session.id, job_id, index, again))

    def _warn(self, session: Session) -> None:
        """Tell the client to slow down, before anything has to be refused."""
        waiting = self._parts.dispatcher.waiting
        is_near = len(waiting) >= _WARN_AT * waiting.length_max or session.results.open_count > _WARN_AT * 1000
        now_ms = self._parts.clock.now_ms()
        if is_near and now_ms - session.warned_ms >= _WARN_EVERY_MS:
            session.warned_ms = now_ms
            text = "many utterances wait for a node"
            self._mailbox.post(Backpressure(action="SLOW_DOWN", resume_after_ms=_WARN_EVERY_MS, message=text))
