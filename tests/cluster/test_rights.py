"""With which rights on the server does an instance do all that it does? With those that docs/store.md lists."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dragoman.app import App, running_app
from dragoman.config.settings import Settings
from dragoman.core.ids import InstanceId, NodeId
from dragoman.embedded import EmbeddedValkey, single_valkey, valkey_cluster
from dragoman.store.interface import StoreDownError
from tests.support.cluster import until
from tests.support.world import FakeNode, FakeSession, World

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "store.md"


def _listed_rights() -> list[str]:
    """The line of docs/store.md that makes the user."""
    found = re.search(r"^ACL SETUSER (.+?)$", DOCUMENT.read_text().replace("\\\n", " "), re.MULTILINE)
    assert found is not None
    return found[1].split()


def _settings(redis: dict[str, Any], number: int) -> Settings:
    shared = {
        "enabled": True,
        "instance_id": f"i{number}",
        "instance_presence_ttl_seconds": 2,
        "dlq_scan_interval_ms": 500,
        "redis": redis | {"key_prefix": "lingua"},
        "node_snapshot": {"refresh_interval_ms": 100, "remove_stale_after_seconds": 1},
    }
    return Settings.model_validate({"server": {"port": 0}, "scheduler": {"phase2": shared}})


async def _use_everything(redis: dict[str, Any]) -> None:
    """Two instances: a job across them, a resume elsewhere, a death, what is done again and again."""
    async with AsyncExitStack() as stack:
        apps: list[App] = []
        for number in range(2):
            app = await stack.enter_async_context(running_app(_settings(redis, number), rng=Random(number)))
            apps.append(app)
        here, there = (World(app) for app in apps)
        node = FakeNode(there, "n1")
        node.register(max_concurrent_jobs=2)
        await asyncio.sleep(0.2)
        node.heartbeat()
        session = FakeSession(here)
        await session.open()
        await until(lambda: here.app.parts.dispatcher.view.get(NodeId("n1")) is not None, within_s=10)
        await asyncio.sleep(0.5)
        session.speak("one")
        node.finish(await node.gets_job(within_s=5))
        await until(lambda: len(session.results) == 1, within_s=5)
        await there.app.parts.store.post(InstanceId("i1"), b"garbage", is_new_work=False)
        session.speak("two")
        node.fail(await node.gets_job(2, within_s=5), "INTERNAL_ERROR")
        await until(lambda: len(session.terminals) == 2, within_s=5)
        session.hang_up()
        node.heartbeat()
        await asyncio.sleep(12)
        assert await there.app.parts.store.dead_letters(InstanceId("i1"), 10)


@contextmanager
def _servers(mode: str) -> Iterator[tuple[EmbeddedValkey, ...]]:
    if mode == "single":
        with single_valkey() as server:
            yield (server,)
    else:
        with valkey_cluster() as cluster:
            yield cluster.servers


@pytest.mark.timeout(90)
@pytest.mark.parametrize("mode", ["single", "cluster"])
def test_the_listed_rights_are_enough(mode: str) -> None:
    with _servers(mode) as servers:
        for server in servers:
            server.call("ACL", "SETUSER", *_listed_rights())
            server.call("ACL", "LOG", "RESET")
        urls = [f"redis://dragoman:secret@127.0.0.1:{server.port}" for server in servers]
        redis = {"mode": "single", "url": urls[0]} if mode == "single" else {"mode": "cluster", "cluster_urls": urls}
        asyncio.run(_use_everything(redis))
        denied = [server.call("ACL", "LOG") for server in servers]
    assert denied == [[] for _ in servers]


def test_a_wrong_password_is_told_at_the_start() -> None:
    async def start(url: str) -> None:
        async with running_app(_settings({"mode": "single", "url": url}, 0)):
            pass

    with single_valkey() as server:
        server.call("ACL", "SETUSER", *_listed_rights())
        with pytest.raises(StoreDownError, match="password"):
            asyncio.run(start(f"redis://dragoman:wrong@127.0.0.1:{server.port}"))


def test_a_user_who_may_not_run_scripts_is_told_at_the_start() -> None:
    async def start(url: str) -> None:
        async with running_app(_settings({"mode": "single", "url": url}, 0)):
            pass

    with single_valkey() as server:
        server.call("ACL", "SETUSER", *_listed_rights(), "-evalsha", "-eval")
        with pytest.raises(StoreDownError, match="script"):
            asyncio.run(start(f"redis://dragoman:secret@127.0.0.1:{server.port}"))
