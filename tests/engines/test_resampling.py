"""Does resampling keep what is there, and add nothing?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dragoman.engines.resampling import resample

RATES = (8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000)


def _sine(hertz: float, rate: int, seconds: float = 0.5) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("hertz", [100, 1000, 3000])
def test_a_tone_of_speech_stays_the_same_tone(rate: int, hertz: float) -> None:
    made = resample(_sine(hertz, rate), rate, 16_000)
    wanted = _sine(hertz, 16_000)
    assert abs(len(made) - len(wanted)) <= 1
    # Away from the ends, where the tone begins out of nothing.
    middle = slice(1000, -1000)
    assert np.max(np.abs(made[: len(wanted)][middle] - wanted[: len(made)][middle])) < 0.01


def test_a_tone_that_the_wanted_rate_cannot_carry_is_gone() -> None:
    made = resample(_sine(9500, 22_050), 22_050, 16_000)
    assert np.max(np.abs(made[1000:-1000])) < 0.01


@settings(max_examples=50)
@given(st.integers(0, 3000), st.sampled_from(RATES), st.sampled_from(RATES))
def test_the_duration_stays(length: int, rate: int, wanted: int) -> None:
    made = resample(np.ones(length, dtype=np.float32), rate, wanted)
    assert len(made) == round(length * wanted / rate)
    assert made.dtype == np.float32
    assert np.all(np.isfinite(made))


def test_the_same_rate_changes_nothing() -> None:
    samples = _sine(440, 16_000)
    assert resample(samples, 16_000, 16_000) is samples
