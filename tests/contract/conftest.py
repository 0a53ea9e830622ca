"""How does a contract test get its store? One loop holds both, for as long as the test runs."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dragoman.store.interface import Store
from tests.support.stores import SLOW_STORES, STORES, Opened, OpenStore


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of one test."""
    with asyncio.Runner() as runner:
        yield runner


def _params(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_STORES else []) for name in sorted(names)]


@pytest.fixture(params=_params(STORES))
def opened(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[OpenStore]:
    """Each store in turn, empty."""
    with Opened(runner, STORES[request.param]) as opened:
        yield opened


@pytest.fixture(params=_params(set(STORES) - {"memory"}))
def shared(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[OpenStore]:
    """Each store that others may write to."""
    with Opened(runner, STORES[request.param]) as opened:
        yield opened


@pytest.fixture
def store(opened: OpenStore) -> Store:
    """The store itself."""
    return opened.store


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in the loop of its store."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner = pyfuncitem.funcargs["runner"]
    assert isinstance(runner, asyncio.Runner), "a contract test that is a coroutine wants `store` or `opened`"
    runner.run(pyfuncitem.obj(**arguments))
    return True
