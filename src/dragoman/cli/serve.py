"""The command `dragoman serve`: one scheduler instance."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragoman.config.settings import Settings


async def serve_until_stopped(settings: Settings) -> None:
    """Run one instance until SIGTERM or SIGINT: it drains then; a second signal stops it at once.

    Raises OSError when its address is taken.
    """
    from dragoman.app import running_app

    stop, stop_now = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    async with running_app(settings) as app:
        await stop.wait()
        draining = asyncio.create_task(app.drain())
        stopping = asyncio.create_task(stop_now.wait())
        await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, stopping):
            task.cancel()
        await asyncio.gather(draining, stopping, return_exceptions=True)
