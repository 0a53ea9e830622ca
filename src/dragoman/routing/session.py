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
from dragoman.protocol.segmentation import Segmenter
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult, UiEvent, UiEventKind
from dragoman.routing.mailbox import Mailbox
from dragoman.store.interface import Parked, SessionRecord

_UNCONFIRMED_MAX: Final = 1000
"""Terminal messages kept for a client that may not have had them."""


@dataclass(slots=True)
class _Detached:
    since_ms: int
    bytes_parked: int = 0


class Session:
    """One client's conversation, as this instance holds it."""

    def __init__(self, record: SessionRecord, *, gap_timeout_ms: int, segmenter: Segmenter, bytes_max: int) -> None:
        self.record = record
        self.id: SessionId = record.session_id
        self.tenant: TenantId | None = record.tenant_id
        self.trace_id = TraceId(record.trace_id)
        self.segmenter = segmenter
        self.results: OrderedResults[Terminal] = OrderedResults(gap_timeout_ms)
        self.is_closed = False
        self.warned_ms = 0
        """When the client was last told to slow down."""
        self._bytes_max = bytes_max
        self._mailbox: Mailbox | None = None
        self._detached: _Detached | None = None
        self._hints: dict[JobId, tuple[JobRequest, UiEventKind, int]] = {}
        self._serial = 0
        self._unconfirmed: deque[Parked] = deque()

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

    def send_terminals(self, terminals: list[Terminal], now_ms: int) -> list[Parked]:
        """Send terminal messages; what cannot be sent is answered, to be parked."""
        to_park: list[Parked] = []
        for terminal in terminals:
            self._serial += 1
            owed = Parked(serial=self._serial, message=terminal)
            if self._mailbox is not None and self._mailbox.post(terminal):
                self._unconfirmed.append(owed)
                self._trim()
            else:
                to_park.append(self._within_budget(owed, now_ms))
        return to_park

    def settle(self, out: list[Terminal | Missing], now_ms: int) -> list[Parked]:
        """Send what the order of results lets go."""
        terminals = [
            self._missing(item.index, "gap_timeout", now_ms) if isinstance(item, Missing) else item for item in out
        ]
        return self.send_terminals(terminals, now_ms)

    def confirm(self, serial: int) -> None:
        """The client has had every terminal message up to this one."""
        while self._unconfirmed and self._unconfirmed[0].serial <= serial:
            self._unconfirmed.popleft()

    def attach(self, mailbox: Mailbox, parked: tuple[Parked, ...], received: int | None) -> list[Parked]:
        """A connection came (back): send what is owed. `received` is how many terminal messages the client has had."""
        self._mailbox = mailbox
        self._detached = None
        owed = sorted({item.serial: item for item in (*self._unconfirmed, *parked)}.values(), key=lambda it: it.serial)
        self._unconfirmed.clear()
        self._serial = max([self._serial, received or 0, *(item.serial for item in owed)])
        left: list[Parked] = []
        for item in owed:
            if received is not None and item.serial <= received:
                continue
            if mailbox.post(item.message):
                self._unconfirmed.append(item)
            else:
                left.append(item)
        return left

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
            self._unconfirmed.popleft()
