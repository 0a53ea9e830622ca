"""How are several instances put into one story? Over one store, each with a line to it that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

from dragoman.app import running_app
from dragoman.clock import SystemClock
from dragoman.config.settings import Settings
from dragoman.core.ids import NodeId
from dragoman.protocol.session_messages import SessionInit, SessionInitAck
from dragoman.store.interface import StoreDownError
from dragoman.store.memory.store import MemoryStore
from tests.support.stores import RETAINED_BYTES_MAX
from tests.support.world import FakeNode, FakeSession, World

NOTES = frozenset({"owe", "note_place", "settle", "renew_owners", "acknowledge", "flush"})


class Line:
    """One instance's line to the store that all share. Cut, nothing gets through, and its presence runs out."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._returns: list[Callable[[], None]] = []
        self.is_cut = False

    def cut(self) -> None:
        """Nothing gets through any more."""
        self.is_cut = True

    def mend(self) -> None:
        """Everything gets through again."""
        self.is_cut = False
        for callback in self._returns:
            callback()

    @property
    def is_up(self) -> bool:
        return not self.is_cut

    def on_return(self, callback: Callable[[], None]) -> None:
        self._returns.append(callback)

    async def close(self) -> None:
        """The store goes on without this instance."""

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name in NOTES:
            return self._note(verb)
        return self._verb(verb)

    def _note(self, verb: Callable[..., None]) -> Callable[..., None]:
        def note(*arguments: Any, **named: Any) -> None:
            if not self.is_cut:
                verb(*arguments, **named)

        return note

    def _verb(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        async def step(*arguments: Any, **named: Any) -> Any:
            if self.is_cut:
                raise StoreDownError("the line is cut")
            answer = await verb(*arguments, **named)
            if self.is_cut:
                raise StoreDownError("the line was cut meanwhile")
            return answer

        return step


class Member(World):
    """One instance of a cluster."""

    def __init__(self, world: World, line: Line) -> None:
        super().__init__(world.app)
        self.line = line

    @property
    def id(self) -> str:
        return self.app.parts.instance_id

    def die(self) -> None:
        """Be gone at once: nothing more to the store, every socket down."""
        self.line.cut()
        for connection in (*self.app.parts.open.sessions, *self.app.parts.open.nodes):
            connection.write_frames = _nothing  # type: ignore[method-assign]
            connection.is_gone = True

    def knows(self, node_id: str) -> bool:
        """Whether it believes that a node can be given jobs."""
        entry = self.app.parts.dispatcher.view.get(NodeId(node_id))
        return entry is not None and entry.standing is None

    async def resumed(self, token: str, terminals_received: int | None = None) -> FakeSession:
        """A session that goes on here."""
        again = FakeSession(self)
        again.say(
            SessionInit(
                client_version="1",
                platform="test",
                src_lang="en",
                tgt_lang="pt",
                resume_token=token,
                terminals_received=terminals_received,
            )
        )
        await again.hears(SessionInitAck)
        return again


@asynccontextmanager
async def a_cluster(count: int, *, settle_s: float = 1.0, **overrides: Any) -> AsyncIterator[list[Member]]:
    """Some instances over one store, each with settings `section__key=value` over the defaults."""
    values: dict[str, Any] = {"server": {"port": 0}}
    for path, value in overrides.items():
        *sections, key = path.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    store = MemoryStore(SystemClock(), retained_bytes_max=RETAINED_BYTES_MAX)
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        for number in range(count):
            values.setdefault("scheduler", {}).setdefault("phase2", {})["instance_id"] = f"i{number}"
            line = Line(store)
            app = await stack.enter_async_context(
                running_app(Settings.model_validate(values), store=line, rng=Random(number))
            )
            members.append(Member(World(app), line))
        await asyncio.sleep(settle_s)
        yield members


async def until(is_so: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until something is so."""
    deadline_s = asyncio.get_running_loop().time() + within_s
    while not is_so():
        assert asyncio.get_running_loop().time() < deadline_s, "it did not come so"
        await asyncio.sleep(0.02)


def _nothing() -> None:
    """A dead instance writes nothing."""


__all__ = ["FakeNode", "Line", "Member", "a_cluster", "until"]
