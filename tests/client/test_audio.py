"""Does a WAV file become what is sent, or an error that says what is wrong with it?"""

import io
import struct
import wave
from pathlib import Path

import pytest

from dragoman.client import Audio, AudioError


def wav(frames: bytes, *, channels: int = 1, width: int = 2, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(frames)
    return out.getvalue()


def test_a_wav_file_is_its_samples(tmp_path: Path) -> None:
    frames = struct.pack("<4h", 1, -2, 3, -4)
    file = tmp_path / "a.wav"
    file.write_bytes(wav(frames, rate=8_000))
    for source in (file, str(file), file.read_bytes()):
        audio = Audio.from_wav(source)
        assert (audio.data, audio.sample_rate, audio.format) == (frames, 8_000, "pcm16")
        assert audio.duration_s == 4 / 8_000


def test_two_channels_become_their_mean() -> None:
    frames = struct.pack("<6h", 100, 300, -100, -300, 32767, 32767)
    assert Audio.from_wav(wav(frames, channels=2)).data == struct.pack("<3h", 200, -200, 32767)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no WAV file of 16-bit PCM: it ends too early"),
        (b"ID3 no wav at all", "no WAV file of 16-bit PCM"),
        (wav(bytes(8), width=1), "1 channels with 8 bits; wanted 1 or 2 with 16 bits"),
        (wav(bytes(12), channels=3), "3 channels with 16 bits"),
        (wav(b""), "the audio is empty"),
        (wav(bytes(8), rate=4_000), "4000 samples per second; wanted 8000 to 192000"),
        (wav(bytes(8))[:30], "no WAV file of 16-bit PCM"),
    ],
)
def test_anything_else_is_refused_with_what_was_seen_and_wanted(data: bytes, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        Audio.from_wav(data)


def test_a_file_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        Audio.from_wav("/no/such/file.wav")


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(AudioError, match="3 bytes; wanted an even number"):
        Audio(data=b"abc", sample_rate=16_000)
    assert Audio(data=b"abc", sample_rate=48_000, format="opus").duration_s is None
