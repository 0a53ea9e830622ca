"""How does a program get speech and text translated?"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from dragoman.client.audio import Audio
from dragoman.client.errors import MixedUseError, PayloadTooLargeError, SessionEndedError, TimedOutError
from dragoman.client.feed import AudioFeed
from dragoman.client.ledger import Ledger
from dragoman.client.line import Line
from dragoman.client.options import Options
from dragoman.client.patience import RetryPolicy
from dragoman.client.request import Request, Wish, check_request_id
from dragoman.client.stream import AudioStream
from dragoman.client.translation import Translation, Update
from dragoman.client.utterance import Utterance
from dragoman.protocol.requests import CHUNK_SAMPLE_RATE


def connect(
    url: str,
    *,
    src: str,
    tgt: str,
    token: str | None = None,
    tenant: str | None = None,
    tls: ssl.SSLContext | None = None,
    json: bool = False,
    dialect: str | None = None,
    two_way: bool = False,
    auto_langs: Sequence[str] | None = None,
    partials: bool = False,
    trace_id: str | None = None,
    timeout_s: float = 60,
    connect_timeout_s: float = 10,
    reconnect_s: float = 60,
    heartbeat_s: float = 20,
    retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008  # frozen
    reopen: bool = True,
    in_flight_max: int = 256,
    message_bytes_max: int = 8 * 1024 * 1024,
) -> Session:
    """A session with the scheduler at `url` (ws: or wss:), to be opened by `async with`.

    `src` and `tgt` are language tags, `src` may be "auto": then `auto_langs` are the ones to expect. With `two_way`,
    whichever of the two is spoken is translated into the other. `partials` asks for what is recognised meanwhile.

    Each request ends within `timeout_s`, whatever happens; it may say another. A lost connection is made anew for up
    to `reconnect_s`, and the session resumed. If the scheduler no longer knows the session, another is opened and
    what had not ended is asked for again, unless `reopen` is false. What was refused for want of room is asked for
    again as `retry` says; None: never. At most `in_flight_max` requests are under way, further ones wait.
    `message_bytes_max` is the scheduler's `server.max_message_bytes`.

    Raises ValueError for a wrong argument. Opening raises ConnectFailedError when nobody answers, or a SchedulerError.
    """
    options = Options(
        url=url,
        src=src,
        tgt=tgt,
        token=token,
        tenant=tenant,
        tls=tls,
        json=json,
        dialect=dialect,
        two_way=two_way,
        auto_langs=None if auto_langs is None else tuple(auto_langs),
        partials=partials,
        trace_id=trace_id,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
        reconnect_s=reconnect_s,
        heartbeat_s=heartbeat_s,
        retry=retry,
        reopen=reopen,
        in_flight_max=in_flight_max,
        message_bytes_max=message_bytes_max,
    )
    return Session(options)


class Session:
    """A conversation with the scheduler; made by `connect`. For one event loop, open within its `async with` block.

    It carries either whole utterances (`translate`, `submit`, `follow`) or one stream of audio (`stream_audio`): the
    first use decides, and the other raises MixedUseError. A program may have many sessions.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._line: Line | None = None
        self._ledger: Ledger | None = None
        self._stream: AudioStream | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(options.in_flight_max)
        self._count = 0
        self._prefix = secrets.token_hex(4)
        """So that our names for requests are none of the program's."""

    async def __aenter__(self) -> Self:
        if self._line is not None:
            raise SessionEndedError("the session was opened before; make another with connect()")
        self._ledger = Ledger(self._options, self._wake.set)
        self._line = Line(self._options, self._ledger, self._wake)
        await self._line.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open_line().close()

    @property
    def id(self) -> str:
        """The scheduler's name for the session; another one after it was lost and opened anew."""
        return self._open_line().session_id

    @property
    def instance_id(self) -> str:
        """The instance of the scheduler that it is connected to, or was last."""
        return self._open_line().instance_id

    async def translate(
        self,
        said: str | Audio,
        *,
        src: str | None = None,
        tgt: str | None = None,
        request_id: str | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
        speak: bool | None = None,
        timeout_s: float | None = None,
    ) -> Translation:
        """Translate a text, or what is said in a piece of audio. Many may be under way at a time.

        `src` and `tgt` are those of the session unless said otherwise. `request_id` is unique in the session, and the
        same request sent again makes no second job. After `deadline_s` seconds the scheduler drops the job; after
        `timeout_s` we no longer wait for it. `priority` is from 0 (can wait) to 9 (most urgent), else 5. `speak` is
        whether the translation is to be spoken: by default of audio yes, of text no.

        Raises a DragomanError when it failed, ValueError for a wrong argument. Cancelled, it withdraws the job.
        """
        utterance = await self.submit(
            said,
            src=src,
            tgt=tgt,
            request_id=request_id,
            deadline_s=deadline_s,
            priority=priority,
            speak=speak,
            timeout_s=timeout_s,
        )
        try:
            return await utterance.result()
        finally:
            await utterance.cancel()

    async def submit(
        self,
        said: str | Audio,
        *,
        src: str | None = None,
        tgt: str | None = None,
        request_id: str | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
        speak: bool | None = None,
        timeout_s: float | None = None,
    ) -> Utterance:
        """Ask for a translation and go on; the Utterance tells its progress and its result. See `translate`.

        Waits only while `in_flight_max` requests are under way.
        """
        wish = Wish(
            said=said,
            src=src if src is not None else self._options.src,
            tgt=tgt if tgt is not None else self._options.tgt,
            speak=speak,
            priority=priority,
            deadline_s=deadline_s,
        )
        self._check_length(wish)
        name = None if request_id is None else check_request_id(request_id)
        limit_s = timeout_s if timeout_s is not None else self._options.timeout_s
        if not limit_s > 0:
            raise ValueError(f"timeout_s = {limit_s}: wanted more than 0")
        asked_s, began_at = time.perf_counter(), asyncio.get_running_loop().time()
        await self._wait_for_room(limit_s)
        return self._submit(wish, name, asked_s, began_at, began_at + limit_s)

    async def follow(
        self,
        said: str | Audio,
        *,
        src: str | None = None,
        tgt: str | None = None,
        request_id: str | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
        speak: bool | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Update | Translation]:
        """Translate, and tell on the way what is recognised and how far it has come; the Translation comes last.

        See `translate`. Left before its end, it withdraws the job.
        """
        utterance = await self.submit(
            said,
            src=src,
            tgt=tgt,
            request_id=request_id,
            deadline_s=deadline_s,
            priority=priority,
            speak=speak,
            timeout_s=timeout_s,
        )
        try:
            async for update in utterance.partials():
                yield update
            yield await utterance.result()
        finally:
            await utterance.cancel()

    def stream_audio(self, *, timeout_s: float | None = None) -> AudioStream:
        """The session's one stream of audio; an `async with` block around the sending ends it. See AudioStream.

        Raises MixedUseError if the session carries something else already.
        """
        line = self._open_line()
        if self._stream is not None:
            raise MixedUseError("the session has its stream already; end_utterance() begins a new utterance in it")
        if self._count:
            raise MixedUseError("the session carries whole utterances; open another one to stream audio")
        feed = AudioFeed(self._wake.set)
        if line.ended is not None:
            raise line.ended
        line.traffic = feed
        limit_s = timeout_s if timeout_s is not None else self._options.timeout_s
        self._stream = AudioStream(feed, sample_rate=line.sample_rate or CHUNK_SAMPLE_RATE, timeout_s=limit_s)
        return self._stream

    def _submit(self, wish: Wish, name: str | None, asked_s: float, began_at: float, give_up_at: float) -> Utterance:
        """Hand a request to the line; its place is free again when it ends."""
        ledger = self._ledger
        assert ledger is not None
        outcome: asyncio.Future[Translation] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(self._free_room)
        request = Request(
            wish=wish,
            asked_s=asked_s,
            name=name or f"{self._prefix}-{self._count}",
            began_at=began_at,
            give_up_at=give_up_at,
            outcome=outcome,
        )
        self._count += 1
        ledger.add(request)
        return Utterance(request, ledger.withdraw)

    def _free_room(self, outcome: asyncio.Future[Translation]) -> None:
        outcome.exception()  # seen: nobody has to ask for the result
        self._room.release()

    async def _wait_for_room(self, limit_s: float) -> None:
        line = self._open_line()
        self._check_usable(line)
        try:
            async with asyncio.timeout(limit_s):
                await self._room.acquire()
        except TimeoutError as error:
            text = f"{self._options.in_flight_max} requests are under way, and none ended within {limit_s:g} s"
            raise TimedOutError(text) from error
        try:
            self._check_usable(line)
        except BaseException:
            self._room.release()
            raise

    def _check_usable(self, line: Line) -> None:
        if self._stream is not None:
            raise MixedUseError("the session streams audio; open another one for whole utterances")
        if line.ended is not None:
            raise line.ended

    def _check_length(self, wish: Wish) -> None:
        length = wish.message_bytes(is_binary=not self._options.json)
        if length > self._options.message_bytes_max:
            wanted = f"{self._options.message_bytes_max} at most, so cut it into shorter ones"
            raise PayloadTooLargeError(f"the utterance makes a message of {length} bytes; wanted {wanted}")

    def _open_line(self) -> Line:
        if self._line is None:
            raise SessionEndedError("the session is not open; use it as: async with connect(...) as session")
        return self._line
