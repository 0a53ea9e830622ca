"""Does sound survive the way to WAV and back?"""

import array
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.node import Audio, BadInputError, UnsupportedError
from dragoman.node.audio import read_wav

Samples = st.lists(st.integers(-32768, 32767), max_size=50)


def _wav(
    data: bytes, *, kind: int = 1, channels: int = 1, bits: int = 16, rate: int = 16_000, extra: bytes = b""
) -> bytes:
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * width, width, bits) + extra
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST\3\0\0\0abc\0"
    body = b"WAVE" + chunks + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _pcm(*samples: int) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)


@given(Samples, st.sampled_from([8000, 16_000, 22_050, 48_000]))
def test_a_wav_read_is_what_was_written(samples: list[int], rate: int) -> None:
    audio = Audio(data=_pcm(*samples), sample_rate=rate)
    assert read_wav(audio.to_wav()) == audio
    assert audio.duration_s == len(samples) / rate


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_break_the_reader(junk: bytes, with_head: bool) -> None:
    wav = b"RIFF\0\0\0\0WAVE" + junk if with_head else junk
    try:
        read_wav(wav)
    except (BadInputError, UnsupportedError):
        return


@pytest.mark.parametrize(
    ("bits", "kind", "data"),
    [
        (8, 1, bytes([128, 255, 0])),
        (24, 1, b"\0\0\0\0\0\x7f\0\0\x80"),
        (32, 1, b"\0\0\0\0\0\0\0\x7f\0\0\0\x80"),
    ],
)
def test_other_widths_become_sixteen_bits(bits: int, kind: int, data: bytes) -> None:
    assert read_wav(_wav(data, bits=bits, kind=kind)).data == _pcm(0, 0x7F00, -0x8000)


def test_float_samples_are_clipped_and_not_a_number_is_silence() -> None:
    data = array.array("f", [0.0, 1.0, -2.0, float("nan"), 0.5]).tobytes()
    assert read_wav(_wav(data, kind=3, bits=32)).data == _pcm(0, 32767, -32767, 0, 16384)


def test_channels_are_mixed() -> None:
    assert read_wav(_wav(_pcm(100, 300, -10, -30, 7), channels=2)).data == _pcm(200, -20)


def test_the_extensible_form_says_its_kind_further_on() -> None:
    extra = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    assert read_wav(_wav(_pcm(5), kind=0xFFFE, extra=extra)).data == _pcm(5)


def test_a_stream_whose_header_promises_more_is_read_as_far_as_it_goes() -> None:
    wav = _wav(_pcm(1, 2, 3))
    assert read_wav(wav[:-2]).data == _pcm(1, 2)


def test_what_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match="no WAV"):
        read_wav(b"ID3 something")
    with pytest.raises(BadInputError, match="no fmt chunk"):
        read_wav(b"RIFF\0\0\0\0WAVE")
    with pytest.raises(BadInputError, match="0 channels"):
        read_wav(_wav(b"", channels=0))
    with pytest.raises(UnsupportedError, match="kind 85 with 16 bits"):
        read_wav(_wav(b"", kind=85))
