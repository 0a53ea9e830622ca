"""How does the program stay connected to one server?

One multiplexed connection, made anew for ever after a loss. While there is none every call fails at once: nothing is
queued, so that nobody is served late what he asked for before.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.address import Address
from dragoman.store.redis.greeting import RefusedError, greet, named
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.wire import CommandError, Sent, Wire, fail
from dragoman.telemetry.logs import get_logger

__all__ = ["CommandError", "Connection", "Limits", "Redirect", "dial"]

_log = get_logger("store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a connection."""

    connect_timeout_ms: int
    command_timeout_ms: int
    in_flight_max: int = 50_000


DOWN_CODES: Final = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOAUTH",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",
        "WRONGPASS",
    }
)
"""Errors of the server's state, not of the command."""
_DROP_CODES: Final = frozenset({"LOADING", "MASTERDOWN", "READONLY", "UNBLOCKED"})
"""Errors after which another server may answer at the same address."""

# Before Redis 7 an error inside a script is quoted in an error of another kind.
_QUOTED_CODE: Final = re.compile(r"\AERR Error running script .*: -(?P<code>[A-Z]+) ")

_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 0.5
_STEADY_S: Final = 1.0
_CLOSE_S: Final = 0.5
_KINDS_MAX: Final = 64
_TOLD_LOG_INTERVAL_S: Final = 1.0

Redirect: TypeAlias = Callable[["Connection", Sent, str, str], bool]
"""Takes a command that was refused, with the error's code and text; says whether it has seen to it."""


class Connection:
    """The connection to one server. `wire` is the socket it has now: calls go there directly."""

    def __init__(
        self,
        address: Address,
        scripts: Sequence[Script],
        limits: Limits,
        failures: Counter[str],
        *,
        on_change: Callable[[Connection], None],
        redirect: Redirect | None = None,
    ) -> None:
        """`on_change` is called when it is up, when it is lost, and when trying to connect failed."""
        self.address = address
        self.last_error = "not connected yet"
        self.is_new = True
        """Whether the first attempt to connect still goes on."""
        self._scripts = scripts
        self._limits = limits
        self._failures = failures
        self._on_change = on_change
        self._redirect = redirect
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False
        self._told_logged_s = 0.0
        self.wire = self._new_wire()
        self.wire.lost.set()

    @property
    def is_up(self) -> bool:
        """Whether it can be used now."""
        return self.wire.is_open

    async def open(self) -> None:
        """Connect, and stay connected until `close`. Raises StoreDownError if that fails in connect_timeout_ms."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._limits.connect_timeout_ms / 1000
        pause_s = _PAUSE_MIN_S
        failed: StoreDownError
        while True:
            try:
                await self._connect(deadline_s - loop.time())
                break
            except RefusedError as error:
                if error.is_lasting:
                    raise
                failed = error
            except ssl.SSLError as error:
                raise StoreDownError(
                    f"{self.address.name}: TLS failed: {error}. Check that the server speaks TLS at this port, that "
                    "ssl_ca_certs names the authority of its certificate, and that the certificate is for this host"
                ) from error
            except OSError as error:
                failed = self._unreachable(error)
            if loop.time() + pause_s >= deadline_s:
                raise failed
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        self._keeper = loop.create_task(self._keep(_PAUSE_MIN_S), name=f"store {self.address.name}")

    def start(self) -> None:
        """Connect in the background, and stay connected until `close`."""
        keeper = self._keep(0.0)
        self._keeper = asyncio.get_running_loop().create_task(keeper, name=f"store {self.address.name}")

    async def close(self) -> None:
        """Close it for good, after the replies that are due soon."""
        self._is_closed = True
        self.is_new = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self.wire.close(min(_CLOSE_S, self._limits.command_timeout_ms / 1000))

    # --- staying connected

    async def _keep(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.wire.lost.wait()
            # Some while apart: all instances lose a server in the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311
            pause_s = min(max(2 * pause_s, _PAUSE_MIN_S), _PAUSE_MAX_S)
            began_s = loop.time()
            try:
                await self._connect(self._limits.connect_timeout_ms / 1000)
            except OSError as error:
                self._note_failed(str(error) or type(error).__name__)
                continue
            except Exception as error:  # noqa: BLE001  # whatever it was, the connection has to come back
                _log.exception("store_fault", server=self.address.name)
                self._note_failed(repr(error))
                continue
            await self.wire.lost.wait()
            if loop.time() - began_s > _STEADY_S:
                pause_s = _PAUSE_MIN_S

    def _note_failed(self, text: str) -> None:
        self._failures["connect"] += 1
        if text != self.last_error:
            _log.warning("store_unreachable", server=self.address.name, reason=text)
        self.last_error = text
        self.is_new = False
        self._on_change(self)

    async def _connect(self, timeout_s: float) -> None:
        wire = self._new_wire()
        try:
            async with asyncio.timeout(timeout_s):
                await dial(wire, self.address)
                await greet(wire, self.address, self._scripts)
        except TimeoutError as error:
            wire.end("no answer in time")
            raise TimeoutError(f"no answer in {timeout_s * 1000:.0f} ms") from error
        except BaseException:
            wire.end("not wanted any more")
            raise
        wire.on_error = self._answer_error
        self.wire = wire
        self.last_error = ""
        self.is_new = False
        _log.info("store_connected", server=self.address.name)
        self._on_change(self)

    def _new_wire(self) -> Wire:
        return Wire(
            self.address.name,
            in_flight_max=self._limits.in_flight_max,
            command_timeout_s=self._limits.command_timeout_ms / 1000,
            failures=self._failures,
            on_lost=self._note_lost,
        )

    def _unreachable(self, error: OSError) -> StoreDownError:
        seen = str(error) if isinstance(error, StoreDownError) else f"{self.address.name} cannot be reached: {error}"
        return StoreDownError(
            f"{seen}. Check that a Redis or Valkey server runs there and that the address in the settings is right"
        )

    def _note_lost(self, wire: Wire, reason: str) -> None:
        if wire is not self.wire or self._is_closed:
            return
        self.last_error = reason
        _log.warning("store_lost", server=self.address.name, reason=reason)
        self._on_change(self)

    # --- commands that were refused

    def _answer_error(self, wire: Wire, sent: Sent, text: str) -> None:
        quoted = _QUOTED_CODE.match(text)
        code = quoted["code"] if quoted else text.partition(" ")[0]
        future, words, script, slot, detour, sent_s = sent
        if code == "NOSCRIPT" and script is not None:
            wire.send_again((future, (b"EVAL", script.text, *words[2:]), None, slot, detour, sent_s))
            return
        if self._redirect is not None and self._redirect(self, sent, code, text):
            return
        self.answer_refused(sent, code, text)
        if code in _DROP_CODES:
            wire.end(text)

    def answer_refused(self, sent: Sent, code: str, text: str) -> None:
        """Give a caller the error that it is."""
        kind = code if code.isupper() and (code in self._failures or len(self._failures) < _KINDS_MAX) else "ERR"
        self._failures[kind] += 1
        future, words, script, *_ = sent
        if future is None:
            self._log_told(script.name if script is not None else named(words), text)
        elif code in DOWN_CODES:
            fail(future, StoreDownError(f"{self.address.name}: {text}"))
        else:
            fail(future, CommandError(text))

    def _log_told(self, what: str, text: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_logged_s >= _TOLD_LOG_INTERVAL_S:
            self._told_logged_s = now_s
            _log.warning("store_refused", server=self.address.name, what=what, reason=text)


async def dial(wire: Wire, address: Address) -> None:
    """Connect a wire to its server. Raises OSError."""
    loop = asyncio.get_running_loop()
    if address.unix_path is not None:
        await loop.create_unix_connection(lambda: wire, address.unix_path)
        return
    transport, _ = await loop.create_connection(lambda: wire, address.host, address.port, ssl=address.tls)
    opened: socket.socket | Any = transport.get_extra_info("socket")
    if opened is not None:
        # A server's machine that vanished says nothing: without this an idle connection would look alive for hours.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value_s in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value_s)
