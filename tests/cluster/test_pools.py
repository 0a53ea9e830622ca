"""Do three instances over a real server show one plan and its members there, and go on doing so as nodes change?"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import pytest

from dragoman.app import running_app
from dragoman.clock import SystemClock
from dragoman.config.settings import Settings
from tests.support.stores import make_redis_store, single_url
from tests.support.time_machine import clear
from tests.support.world import World, languages

_REFRESH_S = 0.2
_EN_PT, _DE_FR = languages(("en", "pt")), languages(("de", "fr"))


class _Server:
    """What an operator sees on the server."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store = store
        self._prefix = prefix.encode()

    async def members(self, pool: str) -> set[str]:
        key = self._prefix + b":v1:pool:{pool:" + pool.encode() + b"}:members"
        return {word.decode() for word in await self._store._servers.call(key, "SMEMBERS", key)}

    async def plan(self) -> tuple[int, list[str]]:
        key = self._prefix + b":v1:phase3:pools:config"
        record = json.loads(await self._store._servers.call(key, "GET", key) or b"{}")
        return record.get("version", 0), [pool["name"] for pool in record.get("pools", ())]


@asynccontextmanager
async def _three(**pools: Any) -> AsyncIterator[tuple[list[World], _Server]]:
    prefix = f"pools-{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        onlooker = make_redis_store(prefix, {"url": single_url()}, SystemClock())
        await onlooker.open()
        stack.push_async_callback(onlooker.close)
        stack.push_async_callback(clear, onlooker, prefix)
        worlds = []
        for number in range(3):
            shared = {
                "enabled": True,
                "instance_id": f"i{number}",
                "redis": {"url": single_url(), "key_prefix": prefix},
                "node_snapshot": {"refresh_interval_ms": int(_REFRESH_S * 1000)},
            }
            settings = {
                "server": {"port": 0, "shutdown_grace_seconds": 0},
                "scheduler": {"phase2": shared, "phase3": {"enabled": True, **pools}},
            }
            app = await stack.enter_async_context(running_app(Settings.model_validate(settings), rng=Random(number)))
            worlds.append(World(app))
        yield worlds, _Server(onlooker, prefix)


async def _comes_true(what: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Wait until something holds. The time allowed is generous: the machine may be busy."""
    async with asyncio.timeout(within_s):
        while not await what():
            await asyncio.sleep(_REFRESH_S / 4)


@pytest.mark.slow
def test_the_plan_and_its_members_are_on_the_server_and_follow_the_nodes() -> None:
    async def story() -> None:
        automatic = {"require_semantic": False, "max_pools": 2}
        async with _three(auto_pool_config=automatic) as (worlds, server):
            nodes = [
                await world.node(f"n{number}", language_capabilities=[_EN_PT, _EN_PT, _DE_FR][number])
                for number, world in enumerate(worlds)
            ]

            async def is_shown() -> bool:
                _, names = await server.plan()
                return names == ["de-fr", "en-pt"] and await server.members("en-pt") == {"n0", "n1"}

            await _comes_true(is_shown, 10)

            async def is_agreed() -> bool:
                plans = [[group.pool.name for group in w.app.parts.dispatcher.view.pools.planned()] for w in worlds]
                return plans == [["en-pt", "de-fr"]] * 3

            await _comes_true(is_agreed, 10)
            await asyncio.sleep(3 * _REFRESH_S)
            assert (await server.plan())[1] == ["de-fr", "en-pt"]
            version, _ = await server.plan()
            nodes[1].heartbeat(language_capabilities=_DE_FR)

            async def has_moved() -> bool:
                return await server.members("en-pt") == {"n0"} and await server.members("de-fr") == {"n1", "n2"}

            await _comes_true(has_moved, 10)
            # Members come and go; the plan is the same, and nobody writes it anew.
            assert (await server.plan())[0] == version
            nodes[0].hang_up()

            async def is_gone() -> bool:
                return await server.members("en-pt") == set() and (await server.plan())[1] == ["de-fr"]

            await _comes_true(is_gone, 10)

    asyncio.run(story())
