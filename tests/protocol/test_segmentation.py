"""Is every sample of a stream in one utterance, and in the right one?"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from dragoman.protocol.segmentation import Cut, CutReason, Segmenter

PAUSE_MS = 1000
MAX_MS = 5
BYTES_MAX = MAX_MS * 32
"""16 samples of 2 bytes in a millisecond."""


def a_segmenter() -> Segmenter:
    return Segmenter(pause_ms=PAUSE_MS, max_duration_ms=MAX_MS)


@dataclass(frozen=True)
class Chunk:
    seq_step: int
    """How far its number is from the one before; 0 and less: it was had before."""
    samples: int
    wait_ms: int
    is_final: bool
    asks: bool
    """Whether somebody asks for a pause before it comes."""


chunks = st.builds(
    Chunk,
    seq_step=st.sampled_from([1, 1, 1, 2, 0, -1]),
    samples=st.integers(0, 3 * BYTES_MAX // 2),
    wait_ms=st.sampled_from([0, 1, PAUSE_MS - 1, PAUSE_MS, 5 * PAUSE_MS]),
    is_final=st.sampled_from([False, False, False, True]),
    asks=st.booleans(),
)


@given(stream=st.lists(chunks, max_size=30))
def test_every_byte_is_in_one_utterance_in_order(stream: list[Chunk]) -> None:
    segmenter, seq, now_ms = a_segmenter(), -1, 0
    added, cuts = bytearray(), list[Cut]()
    for number, chunk in enumerate(stream):
        now_ms += chunk.wait_ms
        if chunk.asks:
            cuts += segmenter.pause(now_ms)
        payload = bytes([number % 251, number % 7]) * chunk.samples
        cuts += segmenter.add(seq + chunk.seq_step, payload, now_ms, is_final=chunk.is_final)
        if chunk.seq_step > 0:
            seq += chunk.seq_step
            added += payload
    cuts += segmenter.add(seq + 1, b"", now_ms, is_final=True)
    assert b"".join(cut.audio for cut in cuts) == bytes(added)
    assert [cut.index for cut in cuts] == list(range(len(cuts)))
    assert segmenter.next_index == len(cuts)
    assert not segmenter.has_begun
    for cut in cuts:
        assert 0 < len(cut.audio) <= BYTES_MAX
        assert len(cut.audio) % 2 == 0
        assert (cut.reason is CutReason.DURATION) == (len(cut.audio) == BYTES_MAX)


def test_a_final_chunk_ends_the_utterance() -> None:
    segmenter = a_segmenter()
    assert segmenter.add(0, b"ab", 0, is_final=False) == []
    assert segmenter.add(1, b"cd", 0, is_final=True) == [Cut(0, b"abcd", CutReason.FINAL)]
    assert segmenter.add(2, b"ef", 0, is_final=True) == [Cut(1, b"ef", CutReason.FINAL)]


def test_an_empty_final_chunk_only_ends_it() -> None:
    segmenter = a_segmenter()
    segmenter.add(0, b"ab", 0, is_final=False)
    assert segmenter.add(1, b"", 0, is_final=True) == [Cut(0, b"ab", CutReason.FINAL)]


def test_where_nothing_was_said_nothing_ends() -> None:
    segmenter = a_segmenter()
    assert segmenter.add(0, b"", 0, is_final=True) == []
    assert segmenter.next_index == 0


def test_a_chunk_that_was_had_before_changes_nothing() -> None:
    segmenter = a_segmenter()
    segmenter.add(5, b"ab", 0, is_final=False)
    assert segmenter.add(5, b"ab", PAUSE_MS, is_final=True) == []
    assert segmenter.add(4, b"xy", PAUSE_MS, is_final=True) == []
    assert segmenter.due_ms() == PAUSE_MS
    assert segmenter.add(6, b"cd", 1, is_final=True) == [Cut(0, b"abcd", CutReason.FINAL)]


def test_a_long_chunk_is_several_utterances() -> None:
    segmenter = a_segmenter()
    cuts = segmenter.add(0, b"x" * (2 * BYTES_MAX + 2), 0, is_final=True)
    assert [len(cut.audio) for cut in cuts] == [BYTES_MAX, BYTES_MAX, 2]
    assert [cut.reason for cut in cuts] == [CutReason.DURATION, CutReason.DURATION, CutReason.FINAL]


def test_an_utterance_that_ends_just_when_it_is_full_ends_once() -> None:
    assert len(a_segmenter().add(0, b"x" * BYTES_MAX, 0, is_final=True)) == 1


def test_a_pause_ends_the_utterance() -> None:
    segmenter = a_segmenter()
    segmenter.add(0, b"ab", 100, is_final=False)
    assert segmenter.due_ms() == 100 + PAUSE_MS
    assert segmenter.pause(99 + PAUSE_MS) == []
    assert segmenter.pause(100 + PAUSE_MS) == [Cut(0, b"ab", CutReason.PAUSE)]
    assert segmenter.due_ms() is None
    assert segmenter.pause(100 + 9 * PAUSE_MS) == []


def test_a_pause_that_nobody_asked_about_is_seen_by_the_next_chunk() -> None:
    segmenter = a_segmenter()
    segmenter.add(0, b"ab", 0, is_final=False)
    assert segmenter.add(1, b"cd", PAUSE_MS, is_final=False) == [Cut(0, b"ab", CutReason.PAUSE)]
    assert segmenter.due_ms() == 2 * PAUSE_MS


def test_each_chunk_puts_the_pause_off() -> None:
    segmenter = a_segmenter()
    segmenter.add(0, b"ab", 0, is_final=False)
    segmenter.add(1, b"cd", PAUSE_MS - 1, is_final=False)
    assert segmenter.pause(2 * PAUSE_MS - 2) == []
    assert segmenter.pause(2 * PAUSE_MS - 1) == [Cut(0, b"abcd", CutReason.PAUSE)]


def test_without_an_utterance_there_is_no_pause() -> None:
    segmenter = a_segmenter()
    assert segmenter.due_ms() is None
    assert not segmenter.has_begun
    assert segmenter.pause(10 * PAUSE_MS) == []
