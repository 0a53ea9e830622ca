"""What time is it on the server, and may this instance still act there?"""

from __future__ import annotations

import asyncio
import math

from dragoman.clock import Clock
from dragoman.store.interface import StoreDownError


class ServerTime:
    """The server's clock as seen from here, and how long this instance's presence is known to last.

    An instance that was stopped for longer than its presence lasts counts as dead: others have seen to its jobs. So it
    may not touch the store, with whatever it had in mind, before it has announced itself anew.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ahead_ms = 0
        self.valid_until_s = math.inf
        """Time of the event loop; infinite for who announces nothing."""

    def doubt(self) -> None:
        """The server was away, and may have forgotten this instance: it must say that it lives before it does more."""
        if self.valid_until_s != math.inf:
            self.valid_until_s = 0.0

    def check(self) -> None:
        """Raise StoreDownError when this instance may not act."""
        if self._loop.time() > self.valid_until_s:
            raise StoreDownError("this instance was not heard of for too long, and must announce itself first")

    @property
    def is_valid(self) -> bool:
        """Whether this instance may act."""
        return self._loop.time() <= self.valid_until_s

    def set(self, server_ms: int) -> None:
        """The server says what time it is."""
        self._ahead_ms = server_ms - self._clock.now_ms()

    def now_ms(self) -> int:
        """The time of the server, as far as is known here."""
        return self._clock.now_ms() + self._ahead_ms

    def ours_ms(self, server_ms: int) -> int:
        """A time of the server, by our clock."""
        return server_ms - self._ahead_ms

    def age_ms(self, server_ms: int) -> int:
        """How long ago that was."""
        return max(0, self._clock.now_ms() + self._ahead_ms - server_ms)
