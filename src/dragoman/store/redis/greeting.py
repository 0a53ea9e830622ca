"""What is said first on a new connection, and what if the server will not have us?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.address import Address
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.wire import CommandError, Wire, Words

_CLIENT_NAME: Final = b"dragoman"
_CROWDED: Final = "ERR max number of clients"
_IGNORED_CODES: Final = frozenset({"ERR", "NOPERM"})
"""What a user without every permission hears, or an older server says: the commands that matter will tell."""


class RefusedError(StoreDownError):
    """The server answers, and will not serve us."""

    def __init__(self, text: str, *, is_lasting: bool) -> None:
        """Lasting: trying again will not help until somebody has changed something."""
        super().__init__(text)
        self.is_lasting = is_lasting


async def greet(wire: Wire, address: Address, scripts: Sequence[Script]) -> None:
    """Make a new connection ready for use, in one round trip. Raises StoreDownError if this server cannot be used."""
    commands = _credentials(address)
    if address.database:
        commands.append((b"SELECT", address.database))
    commands += [(b"CLIENT", b"SETNAME", _CLIENT_NAME), (b"PING",), (b"ROLE",)]
    if scripts:
        # A user who may not run scripts at all is told now rather than by the first job.
        commands.append((b"EVAL", b"return 1", 0))
    commands += [(b"SCRIPT", b"LOAD", script.text) for script in scripts]
    for command, reply in zip(commands, await say(wire, address, commands), strict=True):
        if command[0] == b"ROLE" and isinstance(reply, list) and reply[0] == b"slave":
            raise RefusedError(
                f"{address.name} is a replica: name the address of its primary in the settings", is_lasting=False
            )


async def ask_once(wire: Wire, address: Address, words: Words) -> Any:
    """Ask one thing on a new connection. Raises StoreDownError."""
    return (await say(wire, address, [*_credentials(address), words]))[-1]


async def say(wire: Wire, address: Address, commands: Sequence[Words]) -> list[Any]:
    """Send commands on a new connection. Errors that do not matter are among the replies; others are raised."""
    replies = await asyncio.gather(*[wire.ask(command) for command in commands], return_exceptions=True)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, CommandError):
            _check_refused(address, command, str(reply))
        elif isinstance(reply, BaseException):
            raise StoreDownError(f"{address.name}: {wire.last_words}, before it answered {named(command)}") from reply
    return replies


def _credentials(address: Address) -> list[Words]:
    if address.user is not None:
        return [(b"AUTH", address.user, address.password or "")]
    return [] if address.password is None else [(b"AUTH", address.password)]


def _check_refused(address: Address, command: Words, text: str) -> None:
    code = text.partition(" ")[0]
    said = f"{address.name} said {text!r} to {named(command)}"
    if text.startswith(_CROWDED):
        raise RefusedError(f"{said}: raise its maxclients or close other clients", is_lasting=False)
    if code == "NOAUTH" and address.password is None:
        raise RefusedError(
            f"{said}: put user and password into the address, as in redis://user:password@host:6379", is_lasting=True
        )
    match command[0]:
        case b"AUTH":
            user = "the default user" if address.user is None else f"user {address.user!r}"
            raise RefusedError(
                f"{said}: the password of {user} in the address is wrong, or the user may not log in", is_lasting=True
            )
        case b"SELECT" if code in _IGNORED_CODES:
            raise RefusedError(
                f"{said}: choose a database that the server has and the user may use, as in redis://host:6379/0",
                is_lasting=True,
            )
        case b"EVAL" if code == "NOPERM":
            raise RefusedError(
                f"{said}: the user may not run scripts; give it the permissions +@all, or +@read +@write +@scripting "
                "+@stream +@connection, and the keys of this program",
                is_lasting=True,
            )
        case _ if code not in _IGNORED_CODES:
            raise RefusedError(f"{said}", is_lasting=code == "DENIED")
        case _:
            return


def named(command: Words) -> str:
    """The command without its arguments, for logs and errors."""
    word = command[0]
    return word.decode() if isinstance(word, bytes) else str(word)
