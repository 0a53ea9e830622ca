"""How much do ended jobs keep in memory? As much as they may, the latest results longest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from dragoman.core.ids import JobId
from dragoman.core.lifecycle import JobState
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult
from dragoman.store.memory.store import MemoryStore
from tests.support.builders import a_request, a_result, an_error
from tests.support.clock import ManualClock
from tests.support.store_steps import KEEP_MS, A

KB = 1024


class Kept:
    """A store with a budget."""

    def __init__(self, retained_bytes_max: int) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock, retained_bytes_max=retained_bytes_max)

    def end(self, name: str, terminal: Terminal) -> None:
        self._run(self.store.open_job(a_request(name), A, (), 1000))
        ending = self.store.end_job(JobId(name), 0, None, JobState.FAILED, terminal, release=True, keep_ms=KEEP_MS)
        self._run(ending)

    def terminal(self, name: str) -> Terminal | None:
        job = self._run(self.store.read_job(JobId(name)))
        return None if job is None else job.terminal

    def _run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(step)


def names(count: int) -> list[str]:
    return [f"j{number}" for number in range(count)]


def test_the_oldest_results_go_first() -> None:
    kept = Kept(100 * KB)
    for name in names(20):
        kept.end(name, a_result(tts_audio=b"x" * 10 * KB))
    kinds = [type(kept.terminal(name)) for name in names(20)]
    worn = kinds.index(TranslationResult)
    assert 10 <= worn < 20
    assert kinds == [MissingResult] * worn + [TranslationResult] * (20 - worn)


def test_a_result_that_went_answers_that_it_expired() -> None:
    kept = Kept(20 * KB)
    kept.end("old", a_result(tts_audio=b"x" * 15 * KB, utterance_index=7, session_id="s9", trace_id="t9"))
    kept.clock.advance(5)
    kept.end("new", a_result(tts_audio=b"x" * 15 * KB))
    assert kept.terminal("old") == MissingResult(
        session_id="s9",
        utterance_index=7,
        reason="result_expired",
        created_at_ms=kept.clock.now_ms(),
        trace_id="t9",
    )
    assert isinstance(kept.terminal("new"), TranslationResult)


def test_errors_keep_what_they_say() -> None:
    kept = Kept(10 * KB)
    kept.end("error", an_error("JOB_TIMEOUT"))
    kept.end("large", a_result(tts_audio=b"x" * 20 * KB))
    assert kept.terminal("error") == an_error("JOB_TIMEOUT")
    assert isinstance(kept.terminal("large"), MissingResult)


def test_at_last_the_oldest_jobs_go_whole() -> None:
    kept = Kept(10 * KB)
    for name in names(30):
        kept.end(name, an_error())
    gone = [kept.terminal(name) is None for name in names(30)]
    assert gone == [True] * 20 + [False] * 10


@pytest.mark.parametrize("field", ["extra", "service_timings", "segments_meta", "reason_codes"])
def test_what_a_node_adds_to_a_result_counts(field: str) -> None:
    kept = Kept(100 * KB)
    large = {"x": "y" * 50 * KB} if field != "reason_codes" else ["y" * 50 * KB]
    for name in names(4):
        kept.end(name, a_result(**{field: large}))
    kinds = [type(kept.terminal(name)) for name in names(4)]
    assert kinds == [MissingResult] * 3 + [TranslationResult]


def test_the_budget_is_given_back_when_jobs_are_forgotten() -> None:
    kept = Kept(30 * KB)
    for _ in range(10):
        kept.end("a", a_result(tts_audio=b"x" * 20 * KB))
        assert isinstance(kept.terminal("a"), TranslationResult)
        kept.clock.advance(KEEP_MS)
        asyncio.run(kept.store.sweep())
    assert kept.terminal("a") is None
