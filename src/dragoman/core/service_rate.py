"""How fast are jobs served, and so when is it worth asking again?"""

from __future__ import annotations

import math
from typing import Final

_HALF_LIFE_MS: Final = 10_000
RETRY_MIN_MS: Final = 100
RETRY_MAX_MS: Final = 30_000
RETRY_UNKNOWN_MS: Final = 1_000


class ServiceRate:
    """Jobs ended per second, the older the less they count: an exponential average with a half-life of 10 s."""

    __slots__ = ("_at_ms", "_weight")

    def __init__(self) -> None:
        self._weight = 0.0
        self._at_ms = 0

    def count(self, now_ms: int) -> None:
        """One job ended."""
        self._weight = self._decayed(now_ms) + 1
        self._at_ms = now_ms

    def per_second(self, now_ms: int) -> float:
        """The rate now."""
        return self._decayed(now_ms) * math.log(2) * 1000 / _HALF_LIFE_MS

    def _decayed(self, now_ms: int) -> float:
        return self._weight * 2.0 ** ((self._at_ms - now_ms) / _HALF_LIFE_MS) if self._weight else 0.0


def retry_after_ms(rate: ServiceRate | None, *, ahead: int, now_ms: int) -> int:
    """When a place should be free for one who comes after `ahead` others, by Little's law; bounded."""
    per_second = rate.per_second(now_ms) if rate is not None else 0.0
    if per_second <= 0.01:
        return RETRY_UNKNOWN_MS
    return max(RETRY_MIN_MS, min(RETRY_MAX_MS, int((ahead + 1) / per_second * 1000)))
