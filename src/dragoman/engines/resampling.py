"""How does audio of one sample rate become audio of another, without sounds that were not there?"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def resample(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """The same sound at `wanted` Hz; all above half of the lower rate is gone.

    By the discrete Fourier transform of the whole utterance: its spectrum is cut or filled up. Interpolation instead
    folds what is above half of the wanted rate back into the band of speech, and recognisers then mishear.
    The silence appended keeps the end from ringing into the beginning and makes the ratio of lengths exact.
    """
    import numpy as np

    if rate == wanted or not len(samples):
        return samples
    step_in, step_out = rate // gcd(rate, wanted), wanted // gcd(rate, wanted)
    steps = -(-(len(samples) + rate // 10) // step_in)
    length_in, length_out = steps * step_in, steps * step_out
    spectrum = np.fft.rfft(samples, length_in)
    fitted = np.zeros(length_out // 2 + 1, dtype=spectrum.dtype)
    # The bin at half the rate belongs to no whole wave of the other rate.
    kept = min((length_in + 1) // 2, (length_out + 1) // 2)
    fitted[:kept] = spectrum[:kept]
    sound = np.fft.irfft(fitted, length_out) * (length_out / length_in)
    return sound[: round(len(samples) * wanted / rate)].astype(np.float32)
