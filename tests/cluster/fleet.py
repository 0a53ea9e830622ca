"""Which instances run, and on what terms? Real processes over one store, quick to notice whatever happens."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final

from dragoman.children import Child, free_port
from tests.cluster.shared import Shared

PRESENCE_TTL_S: Final = 3
LEASE_S: Final = 6
OWNER_TTL_S: Final = 6

_QUICK: Final[dict[str, Any]] = {
    "server.admin_port": 0,
    "server.shutdown_grace_seconds": 10,
    # The nodes' machine is that of the tests, and busy: here that is no reason to wait.
    "scheduler.load_balancer.resource_threshold": 100,
    "scheduler.node_health.heartbeat_interval_seconds": 1,
    "scheduler.node_health.heartbeat_timeout_seconds": 6,
    "scheduler.task_binding.reserved_ttl_seconds": LEASE_S,
    "scheduler.task_binding.lease_seconds": 20,
    "scheduler.results.resume_window_seconds": 20,
    "scheduler.phase2.enabled": True,
    "scheduler.phase2.owner_ttl_seconds": OWNER_TTL_S,
    "scheduler.phase2.instance_presence_ttl_seconds": PRESENCE_TTL_S,
    "scheduler.phase2.stream_block_ms": 200,
    "scheduler.phase2.dlq_scan_interval_ms": 1000,
    "scheduler.phase2.dlq_min_idle_ms": 1000,
    "scheduler.phase2.dlq_max_deliveries": 3,
    "scheduler.phase2.node_snapshot.presence_ttl_seconds": 6,
    "scheduler.phase2.node_snapshot.refresh_interval_ms": 200,
    "scheduler.phase2.redis.command_timeout_ms": 1000,
    "scheduler.phase2.redis.connect_timeout_ms": 1000,
}

_FAULTS: Final = re.compile(r"^.*(?:\[error|\[critical|Traceback).*$", re.MULTILINE)


class Instance:
    """A scheduler process."""

    def __init__(self, name: str, port: int, arguments: list[str]) -> None:
        self.name = name
        self.port = port
        self._arguments = arguments
        self._past = ""
        self.expects_faults = False
        """Whether its log may tell of errors."""
        self._child = self._start()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def instance_id(self) -> str:
        """What it calls itself."""
        return self.name

    @property
    def exit_code(self) -> int | None:
        """How it ended, once it has."""
        return self._child.exit_code

    def said(self) -> str:
        """What it has logged, in all its lives."""
        return self._past + self._child.said()

    def count(self, text: str) -> int:
        """How often it has logged a text."""
        return self.said().count(text)

    def faults(self) -> list[str]:
        """What it has logged as its own fault."""
        return _FAULTS.findall(self.said())

    async def says(self, text: str, within_s: float = 15, *, times: int = 1) -> None:
        """Wait until it has logged a text."""
        await until(lambda: self.count(text) >= times, within_s, lambda: f"{self.name} did not say {text!r}: {self}")

    async def is_ready(self) -> None:
        """Wait until it listens."""
        await asyncio.to_thread(self._child.wait_healthy, self.port, 20)

    def kill(self) -> None:
        """End it without a word."""
        self._child.send_signal(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still."""
        self._child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._child.send_signal(signal.SIGCONT)

    def drain(self) -> None:
        """Ask it to stop."""
        self._child.send_signal(signal.SIGTERM)

    async def ended(self, within_s: float = 20) -> int:
        """Wait for its end."""
        return await asyncio.to_thread(self._child.wait, within_s)

    async def restart(self) -> None:
        """Start it anew, at the same port and with the same id; it has ended."""
        await self.ended()
        self.stop()
        self._child = self._start()
        await self.is_ready()

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._child.exit_code is None:
            self.kill()
        self._past, child = self.said(), self._child
        child.__exit__(None, None, None)

    def __str__(self) -> str:
        return "\n".join(self.said().splitlines()[-40:])

    def _start(self) -> Child:
        return Child(self.name, self._arguments)


class Fleet:
    """The instances of one test."""

    def __init__(self, shared: Shared, settings: dict[str, Any]) -> None:
        self.shared = shared
        self.instances: list[Instance] = []
        self._settings = settings

    def __getitem__(self, at: int) -> Instance:
        return self.instances[at]

    @property
    def urls(self) -> list[str]:
        """Where all of them are reached."""
        return [instance.url for instance in self.instances]

    def stop(self) -> None:
        """End all of them."""
        for instance in self.instances:
            instance.stop()

    def start(self, name: str, **settings: Any) -> Instance:
        """Start another one."""
        port = free_port()
        given = _QUICK | {"server.port": port, "scheduler.phase2.instance_id": name}
        given |= {f"scheduler.phase2.redis.{key}": value for key, value in self.shared.settings.items()}
        given |= self._settings | settings
        words = [word for key, value in given.items() for word in ("--set", f"{key}={_toml(value)}")]
        instance = Instance(name, port, ["-m", "dragoman", "serve", *words])
        self.instances.append(instance)
        return instance

    async def is_ready(self) -> None:
        """All of them listen and know each other."""
        for instance in self.instances:
            await instance.is_ready()
        for instance in self.instances:
            for other in self.instances:
                if other is not instance:
                    await instance.says(f"instance is there part=presence peer={other.name}")


@contextmanager
def fleet_of(count: int, shared: Shared, settings: dict[str, Any] | None = None) -> Iterator[Fleet]:
    """So many instances, named a, b, c, ...; at the end none may have logged a fault of its own."""
    with ExitStack() as stack:
        fleet = Fleet(shared, settings or {})
        stack.callback(fleet.stop)
        for name in "abcdefgh"[:count]:
            fleet.start(name)
        yield fleet
        for instance in fleet.instances:
            assert instance.expects_faults or instance.faults() == [], instance.said()[-20_000:]


async def until(
    condition: Callable[[], object], within_s: float = 15, what: Callable[[], str] = lambda: "it did not come about"
) -> None:
    """Wait until something holds."""
    try:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(f"{what()} (in {within_s:g} s)") from error


@asynccontextmanager
async def kept_busy(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let these go on for as long as the block runs. One that fails is what the block fails by, at its end."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()


def _toml(value: Any) -> str:
    return json.dumps(value)
