"""Over which store is something measured, and what does the store itself cost?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from dragoman.children import sharing
from dragoman.embedded import single_valkey, valkey_cluster

StoreKind: TypeAlias = Literal["memory", "valkey", "cluster"]

MASTERS: Final = 3
"""Of the Redis Cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStore:
    """A store, and how to read its clock."""

    settings: tuple[str, ...]
    """What an instance must be set to, to use it."""
    cpu_s: Callable[[], float]
    """The processor time that all its processes have used, in seconds."""


@contextmanager
def running_store(kind: StoreKind) -> Iterator[MeasuredStore]:
    """A store with nothing in it, until the end of the block. Raises EmbeddedError."""
    match kind:
        case "memory":
            yield MeasuredStore(settings=(), cpu_s=_nothing)
        case "valkey":
            with single_valkey() as server:
                yield MeasuredStore(settings=sharing([server.url], is_cluster=False), cpu_s=server.cpu_s)
        case "cluster":
            with valkey_cluster(masters=MASTERS) as servers:
                yield MeasuredStore(settings=sharing(servers.urls, is_cluster=True), cpu_s=servers.cpu_s)


def _nothing() -> float:
    return 0.0
