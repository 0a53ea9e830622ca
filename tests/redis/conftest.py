"""Which servers do these tests talk to? Real ones of our own, on the event loop of the program."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest
import uvloop

from dragoman.embedded import EmbeddedValkey, single_valkey


@pytest.fixture(autouse=True)
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of one test."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """A server that all tests of a file share: none of them may harm it."""
    with single_valkey() as valkey:
        yield valkey


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A server of one test, to do to it what it likes."""
    with single_valkey() as valkey:
        yield valkey


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in the loop of its runner."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner = pyfuncitem.funcargs["runner"]
    assert isinstance(runner, asyncio.Runner)
    runner.run(pyfuncitem.obj(**arguments))
    return True
