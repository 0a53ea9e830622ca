"""How does a test get its connections, and wait for what it wants?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dragoman.config.phase2 import RedisSettings
from dragoman.store.redis.scripts import Script
from dragoman.store.redis.servers import Servers, make_servers

WITHIN_S = 10

ADD = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
ECHO = Script("echo", "return ARGV[1]")
COPY = Script("copy", "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}")
SCRIPTS = (ADD, ECHO, COPY)


@asynccontextmanager
async def opened(
    urls: str | Sequence[str], scripts: Sequence[Script] = SCRIPTS, **settings: Any
) -> AsyncIterator[Servers]:
    """Connected to one server, or to a cluster if it is more than one url."""
    servers = not_open(urls, scripts, **settings)
    await servers.open()
    try:
        yield servers
    finally:
        await servers.close()


def not_open(urls: str | Sequence[str], scripts: Sequence[Script] = SCRIPTS, **settings: Any) -> Servers:
    """The same before it is opened."""
    where = {"url": urls} if isinstance(urls, str) else {"mode": "cluster", "cluster_urls": list(urls)}
    return make_servers(RedisSettings.model_validate({**where, **settings}), scripts)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(WITHIN_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_it_answers(servers: Servers, key: bytes) -> None:
    """Wait until a key can be read again."""
    async with asyncio.timeout(WITHIN_S):
        while isinstance(await outcome(servers.call(key, "GET", key)), Exception):
            await asyncio.sleep(0.005)


async def outcome(future: asyncio.Future[Any]) -> Any:
    """What came of a call, be it an error."""
    return (await asyncio.gather(future, return_exceptions=True))[0]
