"""Which utterances are under way, and what does each message of the scheduler mean for them?"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from dragoman.client.errors import (
    BadAnswerError,
    DeadlineExceededError,
    DragomanError,
    JobCancelledError,
    MissingResultError,
    PayloadTooLargeError,
    RefusedError,
    SchedulerError,
    TimedOutError,
    from_wire,
)
from dragoman.client.options import Options
from dragoman.client.patience import retry_wait_s
from dragoman.client.request import Request
from dragoman.client.traffic import Outgoing
from dragoman.client.translation import Translation, read_result, read_update
from dragoman.core.ids import RequestId, SessionId, TenantId, derive_job_id
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    ClientJobCancel,
    MissingResult,
    SessionAsrPartial,
    Terminal,
    TranslationResult,
    UiEvent,
    Utterance,
)

_AHEAD_MAX: Final = 900
"""How far an index may be ahead of the first that has not ended; the scheduler takes at most 999."""
_DEADLINE_GRACE_S: Final = 2.0
"""The scheduler is to say itself that a deadline has passed; when it has not after so long, we do."""


class Ledger:
    """The utterances of one session. It numbers them as they go out, and gives each its end. See Traffic."""

    def __init__(self, options: Options, wake: Callable[[], None]) -> None:
        self._options = options
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._open: dict[Request, None] = {}
        self._unsent: deque[Request] = deque()
        self._sent: dict[int, Request] = {}
        self._withdrawals: deque[Request] = deque()
        self._next_index = 0

    def add(self, request: Request) -> None:
        """Send it when its turn comes. It ends at its time-out at the latest, whatever happens."""
        deadline_at = request.deadline_at
        if deadline_at is not None:
            request.give_up_at = min(request.give_up_at, deadline_at + _DEADLINE_GRACE_S)
        request.timers.append(self._loop.call_at(request.give_up_at, self._expire, request))
        self._open[request] = None
        self._unsent.append(request)
        self._wake()

    def withdraw(self, request: Request) -> None:
        """The program does not want it any more."""
        if request.outcome.done() or request.is_withdrawn:
            return
        request.is_withdrawn = True
        if request.index is not None and not request.is_waiting:
            self._withdrawals.append(request)
            self._wake()
        if request.index is None or request.is_waiting or request in self._unsent:
            self._finish(request, JobCancelledError("withdrawn before the scheduler had it"))

    # --- what the line asks and tells

    def next_message(self, session_id: str, *, is_held: bool) -> Outgoing | None:
        """See Traffic."""
        if self._withdrawals:
            request = self._withdrawals.popleft()
            return ClientJobCancel(job_id=request.job_id or self._likely_job_id(session_id, request))
        while self._unsent and not is_held and self._may_go(self._unsent[0]):
            message = self._utterance(self._unsent.popleft(), session_id)
            if message is not None:
                return message
        return None

    def note(self, message: UiEvent | SessionAsrPartial) -> None:
        """See Traffic."""
        request = self._sent.get(message.utterance_index)
        if request is None or not message.job_id or request.is_waiting:
            return
        if request.is_withdrawn and message.job_id != request.job_id:
            # The job was cancelled by a name that was only likely.
            self._withdrawals.append(request)
            self._wake()
        request.job_id = message.job_id
        request.updates.put(read_update(message))

    def end(self, index: int, terminal: Terminal) -> None:
        """See Traffic."""
        request = self._sent.get(index)
        if request is None:
            return  # had before, or given up here
        match terminal:
            case TranslationResult():
                elapsed_s = time.perf_counter() - request.asked_s
                self._finish(request, read_result(terminal, request_id=request.name, elapsed_s=elapsed_s))
            case MissingResult(reason=reason):
                self._failed(request, MissingResultError(reason))
            case Error():
                if (terminal.details or {}).get("request_id", request.id) == request.id:
                    self._failed(request, from_wire(terminal))

    def spoil(self, index: int, reason: str) -> None:
        """See Traffic."""
        request = self._sent.get(index)
        if request is not None:
            self._finish(request, BadAnswerError(f"the scheduler's answer makes no sense: {reason}"))

    def beat_sent(self) -> None:
        """See Traffic."""

    def beat_answered(self) -> None:
        """See Traffic."""

    def resumed(self) -> None:
        """Send again what the scheduler may not have: it makes no second job of the same request."""
        sent = [request for request in self._sent.values() if not request.is_waiting]
        withdrawn = [request for request in sent if request.is_withdrawn]
        unknown = [request for request in sent if not request.is_withdrawn and request.job_id is None]
        self._unsent = deque(dict.fromkeys([*unknown, *self._unsent]))
        self._withdrawals = deque(withdrawn)
        for request in withdrawn:
            if request.job_id is None:
                self._finish(request, JobCancelledError("withdrawn while the connection was down"))
        self._wake()

    def restarted(self) -> None:
        """Ask for everything anew that has not ended. An utterance that was withdrawn is not."""
        for waiting in (self._sent, self._withdrawals, self._unsent):
            waiting.clear()
        self._next_index = 0
        for request in tuple(self._open):
            request.index = request.job_id = None
            if request.is_withdrawn:
                self._finish(request, JobCancelledError("withdrawn, and the session it was in is gone"))
            elif not request.is_waiting:
                self._unsent.append(request)
        self._wake()

    def was_too_long(self) -> None:
        """Give up the longest of those that may have been it, so that the others get through."""
        unknown = [request for request in self._sent.values() if request.job_id is None]
        if unknown:
            longest = max(unknown, key=lambda request: len(request.wish.audio))
            text = f"the scheduler hung up on an utterance of {len(longest.wish.audio)} bytes; wanted a shorter one"
            self._finish(longest, PayloadTooLargeError(text))

    def fail(self, error: DragomanError) -> None:
        """See Traffic."""
        for request in tuple(self._open):
            self._finish(request, error)

    # --- how

    def _may_go(self, request: Request) -> bool:
        if request.index is not None or not self._sent:
            return True
        # Indexes are given out upwards, so the first in is the lowest.
        return self._next_index - next(iter(self._sent)) < _AHEAD_MAX

    def _utterance(self, request: Request, session_id: str) -> Utterance | None:
        """The message of a request whose turn it is, and its number; None when it has ended meanwhile."""
        if request.outcome.done():
            return None
        deadline_at = request.deadline_at
        left_s = None if deadline_at is None else deadline_at - self._loop.time()
        if left_s is not None and left_s <= 0:
            text = f"not sent within the {request.wish.deadline_s:g} s it had"
            self._finish(request, DeadlineExceededError(text))
            return None
        if request.index is None:
            request.index = self._next_index
            self._next_index += 1
        self._sent[request.index] = request
        return request.wish.message(session_id, request.index, request.id, left_s)

    def _failed(self, request: Request, error: DragomanError) -> None:
        """It goes again, if that is allowed and there is time; else that was its end."""
        if request.is_waiting:
            return
        policy = self._options.retry
        if not isinstance(error, RefusedError):
            request.failures += 1
        at = self._loop.time() + retry_wait_s(error, request.backoff)
        has_time = at < min(request.give_up_at, request.deadline_at or request.give_up_at)
        if policy is None or request.is_withdrawn or not has_time or not policy.allows(error, request.failures):
            self._finish(request, error)
            return
        if isinstance(error, SchedulerError):
            # A job that has failed stays what its request_id stands for. What was lost is asked for by the same one.
            request.tries += 1
        request.job_id = None
        request.refusal = error
        request.is_waiting = True
        request.timers.append(self._loop.call_at(at, self._again, request))

    def _again(self, request: Request) -> None:
        request.is_waiting = False
        del request.timers[1:]
        self._unsent.append(request)
        self._wake()

    def _expire(self, request: Request) -> None:
        """Its time is over, and nothing says that anything will still come."""
        deadline_at = request.deadline_at
        if request.index is not None and not request.is_waiting:
            self._withdrawals.append(request)
            self._wake()
        if deadline_at is not None and self._loop.time() >= deadline_at:
            error: DragomanError = DeadlineExceededError(f"not done within the {request.wish.deadline_s:g} s it had")
        else:
            waited_s = request.give_up_at - request.began_at
            state = "the request could not be sent" if request.index is None else "no result came"
            error = TimedOutError(f"{state} within {waited_s:g} s")
        error.__cause__ = request.refusal
        self._finish(request, error)

    def _finish(self, request: Request, outcome: Translation | DragomanError) -> None:
        self._open.pop(request, None)
        if request.index is not None and self._sent.get(request.index) is request:
            del self._sent[request.index]
        for timer in request.timers:
            timer.cancel()
        if not request.outcome.done():
            if isinstance(outcome, Translation):
                request.outcome.set_result(outcome)
            else:
                request.outcome.set_exception(outcome)
        request.updates.end()

    def _likely_job_id(self, session_id: str, request: Request) -> str:
        """The name that the scheduler gives to the job of a request, unless it knows another tenant than we do."""
        tenant = None if self._options.tenant is None else TenantId(self._options.tenant)
        return derive_job_id(tenant, SessionId(session_id), RequestId(request.id))
