"""How does a test do to our keys what another program might do?"""

from __future__ import annotations

from collections.abc import Awaitable

from dragoman.store.interface import StoreDownError
from dragoman.store.redis.store import RedisStore
from dragoman.store.redis.wire import CommandError, Word

GARBAGE = b"\xff\xfe\x00 garbage"
_TTL_MS = 600_000


async def write(store: RedisStore, key: bytes, *words: Word) -> None:
    """What another program does to a key, with a time to live."""
    await store._servers.call(key, words[0], key, *words[1:])
    await store._servers.call(key, "PEXPIRE", key, _TTL_MS)


async def spoil(store: RedisStore, key: bytes) -> None:
    """Put something of another type under a key."""
    await store._servers.call(key, "DEL", key)
    await write(store, key, "SETRANGE", 3, GARBAGE)


async def read(store: RedisStore, key: bytes, *words: Word) -> object:
    """What is there."""
    return await store._servers.call(key, words[0], key, *words[1:])


async def refused(asked: Awaitable[object]) -> bool:
    """Whether it is refused, with the errors that callers know."""
    try:
        await asked
    except (CommandError, StoreDownError):
        return True
    return False


def bad(store: RedisStore) -> int:
    """How often something was found that is none of ours."""
    return store._servers.failures["unreadable"] + store._servers.failures["WRONGTYPE"]


async def read_blocked(store: RedisStore) -> bool:
    """Whether somebody waits at an inbox."""
    lists = await store._servers.everywhere("CLIENT", "LIST")
    return any(b"cmd=xreadgroup" in line and b" flags=b" in line for listed in lists for line in listed.split(b"\n"))
