"""Which of several things has a key, the same on every instance and in every process?"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

_MASK: Final = (1 << 64) - 1


class Salt:
    """One of the things, as a number that a key's number is mixed with."""

    __slots__ = ("_seed", "_word")

    def __init__(self, name: str, seed: int) -> None:
        self._seed = seed
        self._word = _word(name, seed)

    def mix(self, key: str) -> int:
        """The lot of a key here: 64 bits. The thing with the highest lot has the key."""
        mixed = _word(key, self._seed) ^ self._word
        # The finalizer of SplitMix64 (Steele, Lea and Flood 2014): each bit of its input changes half of its output.
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)


@lru_cache(maxsize=65_536)
def _word(text: str, seed: int) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=seed.to_bytes(8, "little"))
    return int.from_bytes(digest.digest(), "little")
