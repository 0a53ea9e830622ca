"""What does a program hand over as sound, and how does a WAV file become that?"""

from __future__ import annotations

import array
import io
import sys
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

SAMPLE_RATES: Final = range(8_000, 192_001)


class AudioError(ValueError):
    """A sound that cannot be sent; the text says what was seen and what is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """One utterance as sound.

    `data` in `format` pcm16 is mono, 16 bit signed little endian, at `sample_rate` Hz. With `wav` or `opus` it goes
    to the node as it is, if some node reads it.
    """

    data: bytes
    sample_rate: int
    format: Literal["pcm16", "wav", "opus"] = "pcm16"

    def __post_init__(self) -> None:
        if not self.data:
            raise AudioError("the audio is empty; wanted at least one sample")
        if self.sample_rate not in SAMPLE_RATES:
            wanted = f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}"
            raise AudioError(f"the audio has {self.sample_rate} samples per second; wanted {wanted}")
        if self.format == "pcm16" and len(self.data) % 2:
            raise AudioError(f"the audio has {len(self.data)} bytes; wanted an even number, PCM16 has 2 a sample")

    @classmethod
    def from_wav(cls, source: bytes | str | Path) -> Self:
        """The sound of a WAV file, given as its bytes or its path: 16-bit PCM; two channels become their mean.

        Raises AudioError for any other format, and OSError when the file cannot be read.
        """
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            with wave.open(io.BytesIO(data)) as wav:
                channels, width, rate = wav.getnchannels(), wav.getsampwidth(), wav.getframerate()
                frames = wav.readframes(wav.getnframes())
        except (wave.Error, EOFError) as error:
            raise AudioError(f"no WAV file of 16-bit PCM: {str(error) or 'it ends too early'}") from error
        if width != 2 or channels not in (1, 2):
            raise AudioError(f"a WAV file of {channels} channels with {8 * width} bits; wanted 1 or 2 with 16 bits")
        return cls(data=_mono(frames, channels), sample_rate=rate)

    @property
    def duration_s(self) -> float | None:
        """How long it is, in seconds; None when only a decoder could tell."""
        return len(self.data) / 2 / self.sample_rate if self.format == "pcm16" else None


def _mono(frames: bytes, channels: int) -> bytes:
    frames = frames[: len(frames) - len(frames) % (2 * channels)]
    if channels == 1:
        return frames
    samples = array.array("h", frames)
    if sys.byteorder == "big":
        samples.byteswap()
    mixed = array.array("h", ((left + right) // 2 for left, right in zip(samples[::2], samples[1::2], strict=True)))
    if sys.byteorder == "big":
        mixed.byteswap()
    return mixed.tobytes()
