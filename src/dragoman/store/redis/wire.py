"""How do many callers share one socket to a server, and what becomes of them when it breaks?

Commands of one turn of the event loop leave in one write; replies come in the same order. A wire lives as long as its
socket. When anything is wrong with it, a reply too late among the rest, the whole wire ends: so no reply can ever be
matched to the command of another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.scripts import Script

Word: TypeAlias = bytes | str | int | float
Words: TypeAlias = tuple[Word, ...]
"""A command and its arguments."""


class CommandError(StoreDownError):
    """The server refused a command for what it is, or for what lies under its key: asking again at once will not help.

    To the rest of the program this is what it is when the store is down: that step cannot be done now.
    """


class Detour:
    """How often a command was sent elsewhere or once more."""

    __slots__ = ("redirects", "waits")

    def __init__(self) -> None:
        self.redirects = 0
        self.waits = 0


Sent: TypeAlias = tuple[asyncio.Future[Any] | None, Words, Script | None, int, Detour | None, float]
"""A command without a reply yet: who waits (None: nobody), the command, its script, its slot in a Redis Cluster, its
detour if it had one, and when it was given to the wire, in seconds of the loop. A bare tuple: it is made per call."""

_pack: Callable[[Words], bytes] = pack_command  # type: ignore[assignment]  # its stub knows one word only
_NO_REPLY: Final = False
"""What the parser gives when a reply is not complete. No reply of this protocol version is a bool."""
_UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024
_SECOND_LOOK_S: Final = 0.002


class Wire(asyncio.Protocol):
    """One socket. Until it is connected and after it ended, every call fails at once."""

    def __init__(
        self,
        name: str,
        *,
        in_flight_max: int,
        command_timeout_s: float,
        failures: Counter[str],
        on_lost: Callable[[Wire, str], None],
    ) -> None:
        self.name = name
        self.is_open = False
        self.lost = asyncio.Event()
        self._is_gone = asyncio.Event()
        self._in_flight_max = in_flight_max
        self._command_timeout_s = command_timeout_s
        self._failures = failures
        self.on_error: Callable[[Wire, Sent, str], None] = _answer_plainly
        """Answers whoever waits for a command that the server refused, with the server's text."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._new_future = self._loop.create_future
        self._now_s = self._loop.time
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._waiting: deque[Sent] = deque()
        self._unsent: list[bytes] = []
        self._turn_s = 0.0
        self._is_clogged = False
        self._timer: asyncio.TimerHandle | None = None
        self.last_words = "not connected"
        """Why it ended, once it did."""

    # --- calling

    def ask(self, words: Words, script: Script | None = None, slot: int = 0) -> asyncio.Future[Any]:
        """Send a command at the end of this turn. The reply comes as the server gives it; see `on_error` for refusals.

        Raises TypeError at once if a word is of no type that can be sent.
        """
        packed = _pack(words)
        future = self._new_future()
        if not self.is_open or self._is_clogged or len(self._waiting) >= self._in_flight_max:
            self.refuse(future)
            return future
        unsent = self._unsent
        if not unsent:
            self._begin_turn()
        unsent.append(packed)
        self._waiting.append((future, words, script, slot, None, self._turn_s))
        return future

    def tell(self, words: Words, script: Script | None = None, slot: int = 0) -> None:
        """Send a command whose reply nobody waits for."""
        self.send_again((None, words, script, slot, None, 0.0))

    def send_again(self, sent: Sent) -> None:
        """Send a command for whoever waits for it already."""
        future, words, script, slot, detour, _ = sent
        packed = _pack(words)
        if not self.is_open or self._is_clogged or len(self._waiting) >= self._in_flight_max:
            self.refuse(future)
            return
        if not self._unsent:
            self._begin_turn()
        self._unsent.append(packed)
        self._waiting.append((future, words, script, slot, detour, self._turn_s))

    def refuse(self, future: asyncio.Future[Any] | None) -> None:
        """Let a call fail because this wire cannot take it."""
        if not self.is_open:
            kind, text = "down", self.last_words
        elif self._is_clogged:
            kind, text = "clogged", "takes nothing from the socket"
        else:
            kind, text = "full", f"{self._in_flight_max} commands wait for its reply"
        self._failures[kind] += 1
        fail(future, StoreDownError(f"{self.name}: {text}"))

    @property
    def in_flight(self) -> int:
        """How many commands have no reply yet."""
        return len(self._waiting)

    def _begin_turn(self) -> None:
        self._turn_s = self._now_s()
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what was given to the wire in this turn now."""
        unsent = self._unsent
        if not unsent or self._transport is None:
            return
        packed = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        unsent.clear()
        self._transport.write(packed)
        if self._timer is None:
            self._timer = self._loop.call_at(self._turn_s + self._command_timeout_s, self._look_for_late)

    # --- the socket's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        transport = cast("asyncio.Transport", transport)
        if self.lost.is_set():
            transport.abort()
            return
        transport.set_write_buffer_limits(_UNSENT_BYTES_MAX)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        reader, waiting = self._reader, self._waiting
        next_reply, next_waiting = reader.gets, waiting.popleft
        reader.feed(data)
        try:
            while (reply := next_reply()) is not _NO_REPLY:
                if not waiting:
                    self.end(f"it says {str(reply)[:200]!r} unasked")
                    return
                sent = next_waiting()
                if reply.__class__ is ReplyError:
                    self.on_error(self, sent, str(reply))
                    if not self.is_open:
                        return
                    continue
                future = sent[0]
                # A caller that was cancelled left its future done: its reply is read and dropped.
                if future is not None and not future.done():
                    future.set_result(reply)
        except ProtocolError as error:
            self.end(f"what it says is not the protocol: {error}")

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_clogged = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_clogged = False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.end(str(exc) if exc is not None else "it closed the connection")
        self._is_gone.set()

    def end(self, reason: str) -> None:
        """Close the socket at once; every command without a reply fails."""
        if self.lost.is_set():
            return
        self.lost.set()
        self.is_open = False
        self.last_words = reason
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._unsent.clear()
        abandoned = list(self._waiting)
        self._waiting.clear()
        if abandoned:
            self._failures["lost"] += len(abandoned)
        for future, *_ in abandoned:
            # One error each: raising one error in many tasks would grow its traceback.
            fail(future, StoreDownError(f"{self.name}: {reason}; the command may have been done or not"))
        self._on_lost(self, reason)

    async def close(self, timeout_s: float) -> None:
        """Wait for the replies that are due, but not for long, and close the socket."""
        if self.is_open:
            await asyncio.wait([self.ask((b"PING",))], timeout=timeout_s)
        self.end("closed by us")
        if self._transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._is_gone.wait()

    # --- replies that are late

    def _look_for_late(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        due_s = self._waiting[0][-1] + self._command_timeout_s
        if due_s > self._now_s():
            self._timer = self._loop.call_at(due_s, self._look_for_late)
            return
        # A reply may lie in the socket unread, if it is this program that stood still: so read once before judging.
        self._timer = self._loop.call_later(_SECOND_LOOK_S, self._judge_late)

    def _judge_late(self) -> None:
        if self._waiting and self._waiting[0][-1] + self._command_timeout_s <= self._now_s():
            self._failures["timeout"] += 1
            self.end(f"no reply in {self._command_timeout_s * 1000:.0f} ms")
            return
        self._look_for_late()


def fail(future: asyncio.Future[Any] | None, error: Exception) -> None:
    """Give an error to whoever waits, if anybody still does."""
    if future is None or future.done():
        return
    future.set_exception(error)
    # Failures are counted here. A caller that lost interest must not make the loop complain of an error nobody took.
    future.exception()


def _answer_plainly(_wire: Wire, sent: Sent, text: str) -> None:
    fail(sent[0], CommandError(text))
