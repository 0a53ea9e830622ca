"""What is owed to one client, in which order, and on which socket?

A session outlives its connection: while there is none, what is owed is parked in the store, and a resume brings it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from dragoman.core.ids import JobId, SessionId, TenantId, TraceId
from dragoman.core.job import JobRequest
from dragoman.core.ordering import Missing, OrderedResults
from dragoman.protocol.fields import Error
from dragoman.protocol.segmentation import Segmenter
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult, UiEvent, UiEventKind
from dragoman.routing.mailbox import Mailbox
from dragoman.store.interface import Owed, Parked, Place, SessionRecord

_UNCONFIRMED_MAX: Final = 1000
"""Terminal messages kept for a client that may not have had them."""

_ENDED_MAX: Final = 2000
"""Jobs of which it is remembered that their end has come."""


@dataclass(slots=True)
class _Detached:
    since_ms: int
    bytes_parked: int = 0


class Session:
    """One client's conversation, as this instance holds it."""

    def __init__(
        self,
        record: SessionRecord,
        *,
        gap_timeout_ms: int,
        segmenter: Segmenter,
        bytes_max: int,
        place: Place,
        token_digest: bytes,
    ) -> None:
        self.record = record
        self.id: SessionId = record.session_id
        self.tenant: TenantId | None = record.tenant_id
        self.trace_id = TraceId(record.trace_id)
        self.segmenter = segmenter
        self.token_digest = token_digest
        """Of the token that it can be resumed with."""
        self.has_moved = False
        """Whether it began on another instance, which may have jobs of it."""
        self.results: OrderedResults[Terminal] = OrderedResults(gap_timeout_ms, place.next_index)
        self.is_closed = False
        self.warned_ms = 0
        """When the client was last told to slow down."""
        self._bytes_max = bytes_max
        self._mailbox: Mailbox | None = None
        self._detached: _Detached | None = None
        self._hints: dict[JobId, tuple[JobRequest, UiEventKind, int]] = {}
        self._serial = place.serial
        self._unconfirmed: deque[Parked] = deque()
        self._parking: dict[int, Parked] = {}
        """What is on its way into the store, or did not get there, by number."""
        self._passed_over: list[JobId] = []
        self._ended: dict[JobId, None] = {}
        """The last jobs whose ends have come: another instance may tell of one twice."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self._serial, self.results.next_index, self.segmenter.next_index, self.segmenter.cut_seq)

    @property
    def detached_ms(self) -> int | None:
        """Since when it has no connection."""
        return None if self._detached is None else self._detached.since_ms

    @property
    def mailbox(self) -> Mailbox | None:
        """Its connection, while it has one."""
        return self._mailbox

    @property
    def unconfirmed_serial(self) -> int | None:
        """The number of the last terminal message that the client is not known to have had."""
        return self._unconfirmed[-1].serial if self._unconfirmed else None

    def begin(self, job_id: JobId, index: int) -> bool:
        """A job of this session begins. Answers whether it does so anew: it was refused before."""
        self.results.begin(index)
        is_anew = job_id in self._ended
        self._ended.pop(job_id, None)
        return is_anew

    def is_news(self, job_id: JobId) -> bool:
        """Whether the end of a job has not come before: several instances may tell of it, and each more than once."""
        return job_id not in self._ended

    def note_end(self, job_id: JobId) -> None:
        """The end of a job has come. "" is none."""
        if not job_id:
            return
        self._ended[job_id] = None
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def hint(self, request: JobRequest, event: UiEventKind, now_ms: int) -> None:
        """Note how far an utterance has come, to be told in a moment unless its end is told before."""
        self._hints[request.job_id] = (request, event, now_ms)

    def tell_hints(self) -> None:
        """Tell what was noted."""
        hints, self._hints = self._hints, {}
        for request, event, at_ms in hints.values():
            self.tell(
                UiEvent(
                    trace_id=request.trace_id,
                    session_id=self.id,
                    job_id=request.job_id,
                    utterance_index=request.utterance_index,
                    event=event,
                    status="ok",
                    elapsed_ms=at_ms - request.accepted_ms,
                )
            )

    def drop_hint(self, job_id: JobId) -> None:
        """The utterance has ended: how far it had come is no news."""
        self._hints.pop(job_id, None)

    def tell(self, message: msgspec.Struct) -> None:
        """Say something that is worth nothing later: without a connection it is not said."""
        if self._mailbox is not None:
            self._mailbox.post(message)

    def send_terminals(self, terminals: list[Terminal], now_ms: int) -> tuple[list[Parked], list[Owed]]:
        """Send terminal messages; answers what could not be sent, to be parked, and the numbers of all."""
        to_park: list[Parked] = []
        numbered: list[Owed] = []
        for terminal in terminals:
            self._serial += 1
            owed = Parked(serial=self._serial, message=terminal)
            job_id = job_of(terminal)
            if job_id is not None:
                numbered.append(Owed(job_id, index_of(terminal), self._serial))
                self.note_end(job_id)
            if self._mailbox is not None and self._mailbox.post(terminal):
                self._unconfirmed.append(owed)
                self._trim()
            else:
                to_park.append(self._within_budget(owed, now_ms))
        self._parking |= {owed.serial: owed for owed in to_park}
        return to_park, numbered

    def parked(self, parked: list[Parked]) -> None:
        """These lie in the store now."""
        for owed in parked:
            self._parking.pop(owed.serial, None)

    def settle(self, out: list[Terminal | Missing], now_ms: int) -> tuple[list[Parked], list[Owed]]:
        """Send what the order of results lets go. See send_terminals."""
        terminals = [
            self._missing(item.index, "gap_timeout", now_ms) if isinstance(item, Missing) else item for item in out
        ]
        return self.send_terminals(terminals, now_ms)

    def confirm(self, serial: int) -> list[JobId]:
        """The client has had every terminal message up to this one. Answers of which jobs."""
        jobs: list[JobId] = []
        while self._unconfirmed and self._unconfirmed[0].serial <= serial:
            job_id = job_of(self._unconfirmed.popleft().message)
            if job_id is not None:
                jobs.append(job_id)
        return jobs

    def attach(
        self, mailbox: Mailbox, parked: tuple[Parked, ...], received: int | None
    ) -> tuple[list[Parked], list[JobId]]:
        """A connection came (back): send what is owed. `received` is how many terminal messages the client has had.

        Answers what could not be sent, and the jobs of what the client has had.
        """
        self._mailbox = mailbox
        self._detached = None
        known = (*self._unconfirmed, *self._parking.values(), *parked)
        owed = sorted({item.serial: item for item in known}.values(), key=lambda it: it.serial)
        self._unconfirmed.clear()
        self._parking.clear()
        self._serial = max([self._serial, received or 0, *(item.serial for item in owed)])
        left: list[Parked] = []
        had: list[JobId] = []
        for item in owed:
            job_id = job_of(item.message)
            if job_id is not None:
                self.note_end(job_id)
            if received is not None and item.serial <= received:
                if job_id is not None:
                    had.append(job_id)
            elif mailbox.post(item.message):
                self._unconfirmed.append(item)
            else:
                left.append(item)
        self._parking |= {item.serial: item for item in left}
        return left, had

    def take_passed_over(self) -> list[JobId]:
        """Jobs whose ends were sent so long ago that no receipt is waited for any more."""
        passed_over, self._passed_over = self._passed_over, []
        return passed_over

    def give_up(self) -> tuple[list[Parked], list[tuple[int, Terminal]]]:
        """The session goes on elsewhere: what was sent and perhaps not read, and what waits for earlier results."""
        unconfirmed = [*self._unconfirmed, *self._parking.values()]
        self._unconfirmed.clear()
        self._parking.clear()
        return unconfirmed, self.results.take_held()

    def detach(self, mailbox: Mailbox, now_ms: int) -> list[Parked] | None:
        """The connection went: what the client may not have had is answered, to be parked.

        None when the session has another connection by now.
        """
        if self._mailbox is not mailbox:
            return None
        self._mailbox = None
        self._detached = _Detached(now_ms)
        parked = [self._within_budget(item, now_ms) for item in self._unconfirmed]
        self._unconfirmed.clear()
        self._parking |= {item.serial: item for item in parked}
        return parked

    def _within_budget(self, owed: Parked, now_ms: int) -> Parked:
        if self._detached is None or not isinstance(owed.message, TranslationResult):
            return owed
        size = len(owed.message.tts_audio) + len(owed.message.text_translated)
        if self._detached.bytes_parked + size <= self._bytes_max:
            self._detached.bytes_parked += size
            return owed
        missing = self._missing(owed.message.utterance_index, "pending_overflow_evict", now_ms)
        return Parked(serial=owed.serial, message=missing)

    def _missing(self, index: int, reason: str, now_ms: int) -> MissingResult:
        return MissingResult(
            session_id=self.id, utterance_index=index, reason=reason, created_at_ms=now_ms, trace_id=self.trace_id
        )

    def _trim(self) -> None:
        # A client that reads but never answers a ping cannot make us keep its results for ever.
        if len(self._unconfirmed) > _UNCONFIRMED_MAX:
            job_id = job_of(self._unconfirmed.popleft().message)
            if job_id is not None:
                self._passed_over.append(job_id)


def job_of(terminal: Terminal) -> JobId | None:
    """The job that a terminal message is the end of; None when there was none."""
    if isinstance(terminal, TranslationResult):
        return JobId(terminal.job_id)
    named = (terminal.details or {}).get("job_id") if isinstance(terminal, Error) else None
    return JobId(named) if isinstance(named, str) else None


def index_of(terminal: Terminal) -> int:
    """The utterance that a terminal message is about."""
    if not isinstance(terminal, Error):
        return terminal.utterance_index
    index = (terminal.details or {}).get("utterance_index")
    return index if isinstance(index, int) and index >= 0 else 0
