"""What if under a key lies what is none of ours? It is counted and logged, and stops nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

from dragoman.store.redis.connection import CommandError
from dragoman.telemetry.logs import get_logger

log = get_logger("store")

Complain: TypeAlias = Callable[[ValueError], None]
"""Is told of what cannot be read, where the rest still can."""


def note_unreadable(failures: Counter[str], what: str, name: str, error: ValueError) -> None:
    """Count and log a record that cannot be read."""
    failures["unreadable"] += 1
    log.warning("record cannot be read", what=what, name=name, why=str(error))


async def answer_or(asked: asyncio.Future[Any], instead: Any) -> Any:
    """The answer to one of many questions; `instead` when the server refused it, which it has counted already."""
    try:
        return await asked
    except CommandError as error:
        log.warning("record cannot be used", why=str(error))
        return instead
