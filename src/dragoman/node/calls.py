"""How does a function of the user run, so that neither a slow nor a blocking nor a broken one harms the node?"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dragoman.core.capability import Service
from dragoman.node.errors import ServiceError
from dragoman.node.services import Offer
from dragoman.protocol.fields import ErrorCode

_TIMEOUT_CODES: Final = {Service.NMT: ErrorCode.NMT_TIMEOUT, Service.TTS: ErrorCode.TTS_TIMEOUT}

_Work: TypeAlias = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long one call of a service may take, in seconds, with the wait for a free thread."""

    asr_s: float = 60
    nmt_s: float = 30
    tts_s: float = 30
    tone_s: float = 30
    semantic_s: float = 30

    def of(self, service: Service) -> float:
        """The limit of one service."""
        return {
            Service.ASR: self.asr_s,
            Service.NMT: self.nmt_s,
            Service.TTS: self.tts_s,
            Service.TONE: self.tone_s,
            Service.SEMANTIC: self.semantic_s,
        }[service]


class Calls:
    """Calls the functions of services: async ones on the event loop, plain ones in threads."""

    def __init__(self, *, threads: int, limits: TimeLimits) -> None:
        self._crew = _Crew(threads)
        self._limits = limits
        self._overdue: set[Future[Any]] = set()

    @property
    def overdue_count(self) -> int:
        """Threads whose call has passed its limit and runs still: nothing can stop it."""
        self._overdue = {call for call in self._overdue if not call.done()}
        return len(self._overdue)

    async def call(self, offer: Offer, *arguments: object) -> Any:
        """What the function returns.

        Raises ServiceError: the function's own, one that says that the limit has passed, or INTERNAL_ERROR for any
        other exception, with its type only, since its text might hold what somebody said.
        """
        limit_s = self._limits.of(offer.service)
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await self._invoke(offer.function, arguments, limit)
        except ServiceError:
            raise
        except Exception as error:
            if limit.expired():
                code = _TIMEOUT_CODES.get(offer.service, ErrorCode.JOB_TIMEOUT)
                message = f"{offer.service_id} did not answer within {limit_s:g} s"
                raise ServiceError(code, message, {"service_id": offer.service_id}) from error
            message = f"{offer.service_id} failed with {type(error).__name__}"
            raise ServiceError(ErrorCode.INTERNAL_ERROR, message, {"service_id": offer.service_id}) from error

    async def block(
        self, function: Callable[..., Any], *arguments: object, limit: asyncio.Timeout | None = None
    ) -> Any:
        """What a plain function returns, run in a thread."""
        call = self._crew.submit(function, arguments)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            if limit is not None and limit.expired() and not call.done():
                self._overdue.add(call)
            raise

    def close(self) -> None:
        """Let the threads end once their calls have."""
        self._crew.close()

    async def _invoke(self, function: Callable[..., Any], arguments: tuple[object, ...], limit: asyncio.Timeout) -> Any:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            return await function(*arguments)
        answer = await self.block(function, *arguments, limit=limit)
        return await answer if inspect.isawaitable(answer) else answer


class _Crew:
    """Threads that run calls, started when needed.

    They are daemons, unlike those of ThreadPoolExecutor: a call that hangs must not keep the program from ending.
    """

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> Future[Any]:
        """Have a thread call the function; the future may be cancelled until it begins."""
        call: Future[Any] = Future()
        context = contextvars.copy_context()
        self._work.put((call, context.run, (function, *arguments)))
        if not self._idle.acquire(blocking=False) and self._size < self._size_max:
            self._size += 1
            threading.Thread(target=self._work_on, name=f"dragoman-service-{self._size}", daemon=True).start()
        return call

    def close(self) -> None:
        """Let each thread end when it has nothing more to do."""
        for _ in range(self._size):
            self._work.put(None)

    def _work_on(self) -> None:
        while (work := self._next()) is not None:
            call, function, arguments = work
            if call.set_running_or_notify_cancel():
                _settle(call, function, arguments)
            # What was said must not stay in memory until the next call.
            del work, call, function, arguments

    def _next(self) -> _Work | None:
        try:
            return self._work.get_nowait()
        except queue.Empty:
            self._idle.release()
            return self._work.get()


def _settle(call: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = function(*arguments)
    except StopIteration:
        # asyncio refuses to hand this one on, and whoever waits would wait for ever.
        call.set_exception(RuntimeError("StopIteration"))
    except BaseException as error:  # noqa: BLE001 — it is handed to the one who waits
        call.set_exception(error)
    else:
        call.set_result(answer)
