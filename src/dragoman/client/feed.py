"""How does a stream of audio reach the scheduler whole, and when has everything come back?

The scheduler cuts the stream into utterances and numbers them, from 0 up. Chunks are kept until an answered heartbeat
says that they arrived: after a lost connection they are sent again, and the scheduler knows them by their `seq`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from dragoman.client.errors import (
    BadAnswerError,
    DragomanError,
    MissingResultError,
    SessionLostError,
    from_wire,
)
from dragoman.client.request import Updates
from dragoman.client.traffic import Beat, Outgoing
from dragoman.client.translation import Translation, read_result, read_update
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    AudioChunk,
    MissingResult,
    SessionAsrPartial,
    Terminal,
    TranslationResult,
    UiEvent,
)

CHUNK_BYTES_MAX: Final = 32_000
"""A second; so that no chunk ends more than one utterance."""
_UNCONFIRMED_BYTES_MAX: Final = 1_000_000
"""Audio on its way; beyond it the program has to wait."""
_CONFIRM_BYTES: Final = _UNCONFIRMED_BYTES_MAX // 4
"""After so much audio the scheduler is asked whether it has arrived."""
_DOUBT_S: Final = 2.0
"""After a lost connection, in which news of a last utterance may have been lost: how long that has to come."""

Outcome: TypeAlias = Translation | DragomanError


@dataclass(frozen=True, slots=True)
class _Chunk:
    seq: int
    payload: bytes
    is_final: bool


class AudioFeed:
    """The traffic of a session that streams audio. See Traffic."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.outcomes: deque[Outcome] = deque()
        self.updates = Updates()
        self.change = asyncio.Event()
        """Set whenever there is room, a result, or an end."""
        self.failure: DragomanError | None = None
        self.is_finished = False
        """Whether there will be no more audio."""
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[_Chunk] = deque()
        self._bytes = 0
        self._sent_count = 0
        self._seq = 0
        self._beats: deque[int] = deque()
        self._asked_seq = -1
        self._index_max = -1
        self._ended: set[int] = set()
        self._doubt_until = 0.0
        self._is_in_doubt = False

    # --- what the stream does

    @property
    def has_room(self) -> bool:
        """Whether more audio may be added now."""
        return self._bytes < _UNCONFIRMED_BYTES_MAX

    @property
    def doubt_s(self) -> float | None:
        """Seconds until a feed that seems complete is: 0 when it is, None when something is known to be missing."""
        if not self.is_finished or self._chunks or len(self._ended) <= self._index_max:
            return None
        return max(0.0, self._doubt_until - self._loop.time()) if self._is_in_doubt else 0.0

    def add(self, pcm: bytes, *, is_final: bool) -> None:
        """Send more audio, at most CHUNK_BYTES_MAX."""
        self._chunks.append(_Chunk(self._seq, pcm, is_final))
        self._seq += 1
        self._bytes += len(pcm)
        self._wake()

    # --- what the line asks and tells

    def next_message(self, session_id: str, *, is_held: bool) -> Outgoing | None:  # noqa: ARG002
        """See Traffic. Audio is not held back: it comes as fast as somebody speaks."""
        if self._wants_beat():
            return Beat.BEAT
        if self._sent_count == len(self._chunks):
            return None
        chunk = self._chunks[self._sent_count]
        self._sent_count += 1
        return AudioChunk(session_id=session_id, seq=chunk.seq, is_final=chunk.is_final, payload=chunk.payload)

    def note(self, message: UiEvent | SessionAsrPartial) -> None:
        """See Traffic."""
        self._learn(message.utterance_index)
        self.updates.put(read_update(message))

    def end(self, index: int, terminal: Terminal) -> None:
        """See Traffic."""
        outcome: Outcome
        match terminal:
            case TranslationResult():
                outcome = read_result(terminal)
            case MissingResult(reason=reason):
                outcome = MissingResultError(reason)
            case Error():
                outcome = from_wire(terminal)
        self._conclude(index, outcome)

    def spoil(self, index: int, reason: str) -> None:
        """See Traffic."""
        self._conclude(index, BadAnswerError(f"the scheduler's answer makes no sense: {reason}"))

    def beat_sent(self) -> None:
        """See Traffic."""
        self._asked_seq = self._chunks[self._sent_count - 1].seq if self._sent_count else self._asked_seq
        self._beats.append(self._asked_seq)

    def beat_answered(self) -> None:
        """See Traffic."""
        if not self._beats:
            return
        seq = self._beats.popleft()
        had_chunks = bool(self._chunks)
        while self._sent_count and self._chunks[0].seq <= seq:
            self._bytes -= len(self._chunks.popleft().payload)
            self._sent_count -= 1
        if had_chunks and not self._chunks:
            self._doubt_until = self._loop.time() + _DOUBT_S
        self._changed()

    def resumed(self) -> None:
        """See Traffic."""
        self._beats.clear()
        self._asked_seq = -1
        self._sent_count = 0
        self._is_in_doubt = True
        self._doubt_until = self._loop.time() + _DOUBT_S
        self._wake()

    def restarted(self) -> None:
        """See Traffic."""
        self.fail(
            SessionLostError("the scheduler no longer knows the session; what was said in it has to be said anew")
        )

    def was_too_long(self) -> None:
        """See Traffic. No chunk is longer than any scheduler takes."""

    def fail(self, error: DragomanError) -> None:
        """See Traffic."""
        if self.failure is None:
            self.failure = error
            self.updates.end()
            self.change.set()

    # --- how

    def _wants_beat(self) -> bool:
        """Whether the scheduler should be asked what has arrived: it has much, or it has the last."""
        if not self._sent_count:
            return False
        last_seq = self._chunks[self._sent_count - 1].seq
        if self._beats and self._asked_seq == last_seq:
            return False  # that has been asked
        if self.is_finished and self._sent_count == len(self._chunks):
            return True
        return self._bytes >= _CONFIRM_BYTES and not self._beats

    def _learn(self, index: int) -> None:
        self._index_max = max(self._index_max, index)
        self._changed()

    def _conclude(self, index: int, outcome: Outcome) -> None:
        if index in self._ended:
            return
        self._ended.add(index)
        self.outcomes.append(outcome)
        if self._is_in_doubt:
            self._doubt_until = self._loop.time() + _DOUBT_S
        self._learn(index)

    def _changed(self) -> None:
        if self.doubt_s == 0:
            self.updates.end()
        self.change.set()
