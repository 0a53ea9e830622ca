"""How are several stores and the model driven side by side, by any sequence of steps?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dragoman.store.interface import Hold, Store
from tests.support.store_model import StoreModel
from tests.support.stores import MakeStore, Opened, OpenStore, memory_store

T = TypeVar("T")

_UNLAPSED_MAX = 3
"""So many units may pass until leases are looked at: on a server, what nobody looks at goes of itself."""


class StoreMachine(RuleBasedStateMachine):
    """The stores, the model beside them, and time. Time passes in whole units.

    A span lasts whole units too, so that it is seen to end in the very moment; with stores whose time cannot be moved
    so exactly, half a unit less.
    """

    makers: ClassVar[tuple[MakeStore, ...]] = (memory_store,)
    unit_ms: ClassVar[int] = 50
    less_ms: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.model = StoreModel()
        self._stack = ExitStack()
        self._runner = self._stack.enter_context(asyncio.Runner())
        self._run = self._runner.get_loop().run_until_complete
        self._opened: list[OpenStore] = [self._stack.enter_context(Opened(self._runner, make)) for make in self.makers]
        self._unlapsed = 0

    def teardown(self) -> None:
        self._stack.close()

    @rule(units=st.sampled_from([1, 1, 1, 2, 20]))
    def advance(self, units: int) -> None:
        for _ in range(units):
            self.before_time_passes()
            self.ask_at(lambda opened: opened.advance(self.unit_ms))
            self.model.advance(self.unit_ms)
            self._unlapsed += 1
            if self._unlapsed == _UNLAPSED_MAX:
                self.lapse_slots()

    @rule()
    def sweep(self) -> None:
        self.ask(lambda store: store.sweep())

    @rule()
    def lapse_slots(self) -> None:
        self._unlapsed = 0
        assert self.ask(lambda store: as_set(store.lapse_slots())) == self.model.lapse_slots()

    def before_time_passes(self) -> None:
        """What has to be said now, if it is to be true later."""

    def span_ms(self, units: int) -> int:
        """How long a span of so many units is."""
        return units * self.unit_ms - self.less_ms if units else 0

    def ask(self, step: Callable[[Store], Awaitable[T]]) -> T:
        """The answer that every store gives."""
        return self.ask_at(lambda opened: step(opened.store))

    def ask_at(self, step: Callable[[OpenStore], Awaitable[T]]) -> T:
        """The answer that every store gives, where the question needs its time."""

        async def all_of_them() -> list[T]:
            return [await step(opened) for opened in self._opened]

        first, *others = self._run(all_of_them())
        assert all(other == first for other in others)
        return first

    def tell(self, step: Callable[[Store], None]) -> None:
        """Note something at every store."""

        async def all_of_them() -> None:
            for opened in self._opened:
                step(opened.store)

        self._run(all_of_them())


async def as_set(answering: Awaitable[tuple[Hold, ...]]) -> set[Hold]:
    """An answer whose order means nothing."""
    answer = await answering
    assert len(set(answer)) == len(answer)
    return set(answer)
