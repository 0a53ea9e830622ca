"""How does one attempt to open a session, or to resume it, end?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, TypeAlias

from dragoman.client.errors import (
    ConnectFailedError,
    DragomanError,
    ForbiddenError,
    SchedulerError,
    UnauthorizedError,
    from_wire,
)
from dragoman.client.options import Options
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, Codec, FormatError, UnknownTypeError
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.session_messages import SessionInitAck, SessionOutbound
from dragoman.websocket import ClientSocket, SocketClosedError, SocketRefusedError

SESSION_GONE: Final = frozenset({ErrorCode.INVALID_SESSION, ErrorCode.SESSION_CLOSED})
"""Codes by which the scheduler says that it does not know the session."""
_LASTING: Final = frozenset(
    {
        ErrorCode.INVALID_MESSAGE,
        ErrorCode.UNSUPPORTED_FEATURE,
        ErrorCode.INVALID_PAIRING_CODE,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
    }
)
"""Answers to `session_init` that will be the same next time."""


@dataclass(frozen=True, slots=True)
class Opened:
    """There is a session."""

    socket: ClientSocket
    ack: SessionInitAck


@dataclass(frozen=True, slots=True)
class Unreachable:
    """It may go well another time."""

    error: DragomanError


@dataclass(frozen=True, slots=True)
class Denied:
    """It will not go well another time either."""

    error: DragomanError


@dataclass(frozen=True, slots=True)
class Gone:
    """The session that was to be resumed is no more."""

    error: DragomanError


Attempt: TypeAlias = Opened | Unreachable | Denied | Gone


async def attempt(
    options: Options, codec: Codec[SessionOutbound], *, resume_token: str | None, terminals_received: int
) -> Attempt:
    """Connect, and open a session or (with a token) resume one."""
    try:
        async with asyncio.timeout(options.connect_timeout_s):
            return await _attempt(options, codec, resume_token, terminals_received)
    except TimeoutError:
        text = f"{options.url}: the scheduler did not open a session within {options.connect_timeout_s:g} s"
        return Unreachable(ConnectFailedError(text))


async def _attempt(
    options: Options, codec: Codec[SessionOutbound], resume_token: str | None, terminals_received: int
) -> Attempt:
    try:
        socket = await ClientSocket.connect(
            options.url,
            subprotocol=MSGPACK_SUBPROTOCOL if codec.is_binary else None,
            token=options.token,
            connect_timeout_s=options.connect_timeout_s,
            tls=options.tls,
        )
    except SocketRefusedError as error:
        return _refused(error)
    opened = False
    try:
        await socket.send(codec.encode(options.init(resume_token=resume_token, terminals_received=terminals_received)))
        answer = await _answer(socket, codec)
        opened = isinstance(answer, SessionInitAck)
    except SocketClosedError as error:
        return Unreachable(ConnectFailedError(f"{options.url}: before the session was open: {error}"))
    finally:
        if not opened:
            socket.abort()
    if isinstance(answer, SessionInitAck):
        return Opened(socket, answer)
    return _read_no(answer, is_resume=resume_token is not None)


async def _answer(socket: ClientSocket, codec: Codec[SessionOutbound]) -> SessionInitAck | Error:
    """What the scheduler says to `session_init`; anything else is passed over."""
    while True:
        try:
            message = codec.decode(await socket.receive())
        except (FormatError, UnknownTypeError):
            continue
        if isinstance(message, SessionInitAck | Error):
            return message


def _read_no(answer: Error, *, is_resume: bool) -> Attempt:
    error = from_wire(answer)
    if is_resume and answer.code in SESSION_GONE:
        return Gone(error)
    return Denied(error) if answer.code in _LASTING else Unreachable(error)


def _refused(error: SocketRefusedError) -> Attempt:
    denied: SchedulerError
    match error.status:
        case 401:
            denied = UnauthorizedError(f"{error}; the token is missing or not good")
        case 403:
            denied = ForbiddenError(f"{error}; the token is not good for this")
        case _:
            return Unreachable(ConnectFailedError(str(error), status=error.status))
    denied.__cause__ = error
    return Denied(denied)
