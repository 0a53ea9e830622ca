"""Where does a stream of audio chunks end one utterance and begin the next?

At a final chunk, when the utterance grows as long as `max_duration_ms`, or when no chunk came for `pause_ms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dragoman.protocol.requests import CHUNK_SAMPLE_RATE

_BYTES_PER_MS = CHUNK_SAMPLE_RATE * 2 // 1000


class CutReason(StrEnum):
    """Why an utterance ended."""

    FINAL = "final"
    PAUSE = "pause"
    DURATION = "duration"


@dataclass(frozen=True, slots=True)
class Cut:
    """One utterance: PCM16 mono at CHUNK_SAMPLE_RATE."""

    index: int
    audio: bytes
    reason: CutReason


class Segmenter:
    """The stream of one session. It numbers the utterances it cuts, from 0 up."""

    def __init__(self, *, pause_ms: int, max_duration_ms: int) -> None:
        self._pause_ms = pause_ms
        self._bytes_max = max_duration_ms * _BYTES_PER_MS
        self._audio = bytearray()
        self._last_seq = -1
        self._last_ms = 0
        self.next_index = 0
        self.cut_seq = -1
        """The last chunk that went into an utterance."""

    def go_on(self, next_index: int, last_seq: int, audio: bytes, now_ms: int) -> None:
        """Go on where another one stopped: with its number, its last chunk, and the audio that it had not cut."""
        self.next_index = next_index
        self._last_seq = self.cut_seq = last_seq
        self._audio += audio
        self._last_ms = now_ms

    def give_up(self) -> tuple[int, bytes]:
        """The last chunk that was had, and the audio that was not cut; it is none of this one's any more."""
        audio = bytes(self._audio)
        self._audio.clear()
        return self._last_seq, audio

    @property
    def has_begun(self) -> bool:
        """Whether an utterance is under way."""
        return bool(self._audio)

    def due_ms(self) -> int | None:
        """When `pause` should be called, if no chunk comes before."""
        return self._last_ms + self._pause_ms if self._audio else None

    def add(self, seq: int, payload: bytes, now_ms: int, *, is_final: bool) -> list[Cut]:
        """The utterances that a chunk ends. A chunk that was had before (by `seq`) changes nothing."""
        if seq <= self._last_seq:
            return []
        cuts = self.pause(now_ms)
        self._last_seq = seq
        self._last_ms = now_ms
        self._audio += payload
        while len(self._audio) >= self._bytes_max:
            cuts.append(self._cut(self._bytes_max, CutReason.DURATION))
        if is_final and self._audio:
            cuts.append(self._cut(len(self._audio), CutReason.FINAL))
        return cuts

    def pause(self, now_ms: int) -> list[Cut]:
        """Time went by: the utterance that a pause ended, if one did."""
        due_ms = self.due_ms()
        if due_ms is None or now_ms < due_ms:
            return []
        return [self._cut(len(self._audio), CutReason.PAUSE)]

    def _cut(self, length: int, reason: CutReason) -> Cut:
        cut = Cut(self.next_index, bytes(self._audio[:length]), reason)
        del self._audio[:length]
        self.cut_seq = self._last_seq
        self.next_index += 1
        return cut
