"""What is a client told when there is no result? Why, and when to ask again."""

from __future__ import annotations

from typing import Any, Final

from dragoman.clock import Clock
from dragoman.core.capability import Need
from dragoman.core.job import JobRequest
from dragoman.core.refusal import Refusal
from dragoman.core.selection import count_refusals
from dragoman.core.service_rate import RETRY_MAX_MS, ServiceRate, retry_after_ms
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.telemetry.metrics import Metrics

_NEEDS_MAX: Final = 4096


class Answers:
    """Errors with their reasons, from what is known of the fleet and of how fast it serves."""

    def __init__(self, view: FleetView, waiting: WaitingRoom, clock: Clock, metrics: Metrics) -> None:
        self._view = view
        self._waiting = waiting
        self._clock = clock
        self._metrics = metrics
        self._rates: dict[Need, ServiceRate] = {}

    def error(self, request: JobRequest, code: str, text: str, *, is_retryable: bool, **details: Any) -> Error:
        """An error about one request, with what a program needs to act on it."""
        details |= {
            "job_id": request.job_id,
            "utterance_index": request.utterance_index,
            "request_id": request.request_id,
            "retryable": is_retryable,
        }
        return Error(code=code, message=text, details=details)

    def no_node(self, request: JobRequest, refusal: Refusal) -> Error:
        """No node takes it, and why each does not."""
        retry_ms = self._retry_ms(request.need) if refusal.is_worth_waiting else RETRY_MAX_MS
        return self._refusal(request, ErrorCode.NO_AVAILABLE_NODE, refusal.describe(), refusal, retry_ms)

    def queue_full(self, request: JobRequest) -> Error:
        """Every node is full, and so is the waiting room."""
        refusal = self.count_refusals(request.need)
        text = f"{len(self._waiting)} jobs wait already, of {self._waiting.length_max}; {refusal.describe()}"
        return self._refusal(request, ErrorCode.QUEUE_FULL, text, refusal, self._retry_ms(request.need))

    def count_refusals(self, need: Need) -> Refusal:
        """Why each node cannot take a need."""
        return count_refusals(need, self._view, now_ms=self._clock.now_ms())

    def count_service(self, need: Need, now_ms: int) -> None:
        """A job with this need was served: that is how fast it goes."""
        rate = self._rates.get(need)
        if rate is None:
            if len(self._rates) >= _NEEDS_MAX:
                self._rates.clear()
            rate = self._rates[need] = ServiceRate()
        rate.count(now_ms)

    def _refusal(self, request: JobRequest, code: ErrorCode, text: str, refusal: Refusal, retry_ms: int) -> Error:
        self._metrics.refusals.labels(code).inc()
        reasons = {reason.value: count for reason, count in sorted(refusal.counts.items())}
        return self.error(request, code, text, is_retryable=True, reasons=reasons, retry_after_ms=retry_ms)

    def _retry_ms(self, need: Need) -> int:
        return retry_after_ms(self._rates.get(need), ahead=self._waiting.length(need), now_ms=self._clock.now_ms())
