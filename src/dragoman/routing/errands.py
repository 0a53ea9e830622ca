"""How is a frame handled at once, with a task made only if the handling has to wait?

Most frames are handled without waiting for anything (always, with the memory store). A task for each would cost more
than the handling. So the coroutine is stepped here first; only when it waits is the rest of it made a task.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

from dragoman.telemetry.logs import get_logger

log = get_logger("edge")


class Errands:
    """Runs coroutines to their end, within the task group that owns them."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group

    def run(self, errand: Coroutine[Any, Any, None], name: str) -> None:
        """Run an errand now, as far as it goes without waiting; the rest runs as a task. Its failure is logged."""
        try:
            waits_for = errand.send(None)
        except StopIteration:
            return
        except Exception:  # one bad frame must not end the process
            log.exception("errand failed", errand=name)
            return
        self._group.create_task(_finish(errand, waits_for, name), name=name)


async def _finish(errand: Coroutine[Any, Any, None], waits_for: Any, name: str) -> None:
    try:
        await _rest(errand, waits_for)
    except Exception:  # as above
        log.exception("errand failed", errand=name)


@types.coroutine
def _rest(errand: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What `yield from errand` would do, for one that has yielded once already."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001  # also a cancellation belongs to the errand
                waits_for = errand.throw(error)
            else:
                waits_for = errand.send(value)
    except StopIteration:
        return
