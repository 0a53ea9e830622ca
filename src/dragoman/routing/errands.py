"""How is a frame handled at once, with a task made only if the handling has to wait?

Most frames are handled without waiting for anything (always, with the memory store). A task for each would cost more
than the handling. So the coroutine is stepped here first; only when it waits is the rest of it made a task.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Sequence
from typing import Any, TypeVar

from dragoman.store.interface import StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("edge")

T = TypeVar("T")


class Errands:
    """Runs coroutines to their end. It is the parent of their tasks: its owner waits for all of them in the end.

    A TaskGroup would do the same with a callback for each task, which is a twentieth of the cost of a job.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._count = 0

    async def finish(self) -> None:
        """Wait until all are done, those too that are begun meanwhile."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))

    def run(self, errand: Coroutine[Any, Any, None], name: str) -> None:
        """Run an errand now, as far as it goes without waiting; the rest runs as a task. Its failure is logged."""
        try:
            waits_for = errand.send(None)
        except StopIteration:
            return
        except StoreDownError as error:
            log.warning("errand not done, the store is down", errand=name, why=str(error))
            return
        except Exception:  # one bad frame must not end the process
            log.exception("errand failed", errand=name)
            return
        self._count += 1
        self._tasks[self._count] = self._loop.create_task(self._finish(self._count, errand, waits_for, name))

    async def _finish(self, number: int, errand: Coroutine[Any, Any, None], waits_for: Any, name: str) -> None:
        try:
            await _rest(errand, waits_for)
        except StoreDownError as error:
            log.warning("errand not done, the store is down", errand=name, why=str(error))
        except Exception:  # as above
            log.exception("errand failed", errand=name)
        finally:
            del self._tasks[number]


@types.coroutine
def _rest(errand: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What `yield from errand` would do, for one that has yielded once already."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001  # also a cancellation belongs to the errand
                waits_for = errand.throw(error)
            else:
                waits_for = errand.send(value)
    except StopIteration as end:
        answer: T = end.value
        return answer


async def begin_all(errands: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Begin all, each as far as it goes without waiting, before any is waited for. Their answers, in order.

    They run one after another from where they wait on. None may raise.
    """
    waiting: list[tuple[int, Coroutine[Any, Any, T], Any]] = []
    answers: dict[int, T] = {}
    for at, errand in enumerate(errands):
        try:
            waiting.append((at, errand, errand.send(None)))
        except StopIteration as end:
            answers[at] = end.value
    if len(waiting) == 1:
        at, errand, waits_for = waiting[0]
        answers[at] = await _rest(errand, waits_for)
    elif waiting:
        group = [asyncio.ensure_future(_answer(errand, waits_for)) for _, errand, waits_for in waiting]
        for (at, _, _), answer in zip(waiting, await asyncio.gather(*group), strict=True):
            answers[at] = answer
    return [answers[at] for at in range(len(errands))]


async def _answer(errand: Coroutine[Any, Any, T], waits_for: Any) -> T:
    answer: T = await _rest(errand, waits_for)
    return answer
