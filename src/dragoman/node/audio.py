"""What do services get and give as sound, and how does it become WAV and back?"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dragoman.node.errors import BadInputError, UnsupportedError

_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
_SAMPLE_RATES: Final = range(1_000, 384_001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """One utterance, or speech made of one.

    `data` is mono PCM, 16 bit signed little endian, at `sample_rate` Hz, unless `format` names another format, which
    only a recogniser sees that asked for it. `language` is the tag that the client gave, or None if the recogniser is
    to find it out; `candidates` are then the languages to expect, if the client named some. `context` is what was
    said before.
    """

    data: bytes
    sample_rate: int
    format: str = "pcm16"
    language: str | None = None
    candidates: tuple[str, ...] = ()
    context: str = ""

    @property
    def duration_s(self) -> float:
        """How long it is, in seconds; only for PCM."""
        return len(self.data) / 2 / self.sample_rate

    def to_wav(self) -> bytes:
        """The same sound as a WAV file."""
        rate = self.sample_rate
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate, rate * 2, 2, 16)
        body = b"WAVE" + form + struct.pack("<4sI", b"data", len(self.data)) + self.data
        return struct.pack("<4sI", b"RIFF", len(body)) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Speech in a format of the speaker's own, which the client gets as it is."""

    data: bytes
    format: str


def check_sample_rate(sample_rate: int) -> int:
    """The sample rate itself. Raises BadInputError for one that no microphone has."""
    if sample_rate not in _SAMPLE_RATES:
        wanted = f"{_SAMPLE_RATES.start} to {_SAMPLE_RATES.stop - 1}"
        raise BadInputError(f"sample_rate is {sample_rate}; wanted {wanted} Hz")
    return sample_rate


def read_wav(wav: bytes) -> Audio:
    """The sound of a WAV file as mono PCM16; of several channels the mean.

    Raises BadInputError for what is no WAV, UnsupportedError for a WAV that is not PCM or float.
    """
    if wav[:4] != b"RIFF" or wav[8:12] != b"WAVE":
        raise BadInputError("the audio is no WAV: it does not begin with RIFF and WAVE")
    form, data = _chunks(wav)
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack_from("<H", form, 24)[0]
    if channels == 0:
        raise BadInputError("the WAV has 0 channels; wanted 1 or more")
    samples = _to_pcm16(data, kind, bits)
    return Audio(data=_to_mono(samples, channels), sample_rate=check_sample_rate(rate))


def _chunks(wav: bytes) -> tuple[bytes, bytes]:
    """The format and the data of a WAV. A stream's header may promise more data than there is: what is there counts."""
    form = b""
    at = 12
    while at + 8 <= len(wav):
        name, size = struct.unpack_from("<4sI", wav, at)
        body = wav[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = body
        if name == b"data" and len(form) >= 16:
            return form, body
        at += 8 + size + size % 2
    raise BadInputError("the WAV has no fmt chunk followed by a data chunk")


def _to_pcm16(data: bytes, kind: int, bits: int) -> bytes:
    """Samples of any usual width as 16 bit ones, by taking the upper two bytes of each."""
    match kind, bits:
        case 1, 8:
            upper = bytes(value ^ 0x80 for value in range(256))
            out = bytearray(2 * len(data))
            out[1::2] = data.translate(upper)
            return bytes(out)
        case 1, (16 | 24 | 32):
            width = bits // 8
            data = data[: len(data) - len(data) % width]
            if width == 2:
                return data
            out = bytearray(len(data) // width * 2)
            out[0::2] = data[width - 2 :: width]
            out[1::2] = data[width - 1 :: width]
            return bytes(out)
        case 3, 32:
            return _from_float(data[: len(data) - len(data) % 4])
        case _:
            raise UnsupportedError(f"a WAV of kind {kind} with {bits} bits; wanted PCM of 8, 16, 24, 32 or float of 32")


def _from_float(data: bytes) -> bytes:
    values = array.array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    # A comparison with NaN is false, so NaN becomes silence rather than an error.
    return _pack(round(min(1.0, max(-1.0, value)) * 32767) if value == value else 0 for value in values)


def _to_mono(data: bytes, channels: int) -> bytes:
    if channels == 1:
        return data
    values = array.array("h", data[: len(data) - len(data) % (2 * channels)])
    if sys.byteorder == "big":
        values.byteswap()
    return _pack(sum(frame) // channels for frame in zip(*(values[i::channels] for i in range(channels)), strict=True))


def _pack(values: Iterable[int]) -> bytes:
    packed = array.array("h", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
