"""When are frames written to their sockets? Together, at the end of a turn of the event loop.

A peer on the same machine is woken by what is written to it. Written one by one between two pieces of work, each frame
wakes its reader anew; written together, most find it awake. Under load that is a quarter of the cost of a job, and a
lone frame still leaves in the turn in which it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Writer(Protocol):
    """A connection with frames to write."""

    def write_frames(self) -> None:
        """Write them."""
        ...


class Outbound:
    """The connections that have something to write in this turn."""

    __slots__ = ("_before", "_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop, before: Callable[[], None]) -> None:
        """`before` is called before frames are written: what the store is told of them must be on its way first."""
        self._loop = loop
        self._before = before
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Have a connection's frames written at the end of this turn."""
        if not self._writers:
            self._loop.call_soon(self._write)
        self._writers.append(writer)

    def _write(self) -> None:
        writers, self._writers = self._writers, []
        self._before()
        for writer in writers:
            writer.write_frames()
