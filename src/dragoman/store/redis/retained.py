"""Which results of this instance lie on the server, and which must go when they take too much room?"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from msgspec import structs

from dragoman.core.ids import JobId
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult


@dataclass(frozen=True, slots=True)
class _Retained:
    size: int
    until_ms: int
    worn: MissingResult
    """What is left in its place."""


class RetainedResults:
    """The results that an instance put there, the oldest first. Times in milliseconds of our clock."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._results: OrderedDict[JobId, _Retained] = OrderedDict()

    def add(
        self, job_id: JobId, terminal: Terminal, size: int, now_ms: int, keep_ms: int
    ) -> list[tuple[JobId, MissingResult]]:
        """A job ended. Answers the results that must go now, each with what is to be there instead."""
        self._drop(job_id)
        if isinstance(terminal, TranslationResult):
            self._results[job_id] = _Retained(size, now_ms + keep_ms, _worn(terminal, now_ms))
            self._bytes += size
        gone: list[tuple[JobId, MissingResult]] = []
        while self._results:
            oldest, kept = next(iter(self._results.items()))
            if kept.until_ms > now_ms:
                if self._bytes <= self._bytes_max:
                    break
                gone.append((oldest, structs.replace(kept.worn, created_at_ms=now_ms)))
            self._drop(oldest)
        return gone

    def _drop(self, job_id: JobId) -> None:
        kept = self._results.pop(job_id, None)
        if kept is not None:
            self._bytes -= kept.size


def _worn(result: TranslationResult, now_ms: int) -> MissingResult:
    return MissingResult(
        session_id=result.session_id,
        utterance_index=result.utterance_index,
        reason="result_expired",
        created_at_ms=now_ms,
        trace_id=result.trace_id,
    )
