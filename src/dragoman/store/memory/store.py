"""How is everything remembered when nothing is shared with other processes?"""

from __future__ import annotations

from dragoman.clock import Clock
from dragoman.core.ids import InstanceId
from dragoman.store.memory.jobs import MemoryJobs
from dragoman.store.memory.post import MemoryPost
from dragoman.store.memory.registry import MemoryRegistry
from dragoman.store.memory.sessions import MemorySessions
from dragoman.store.registry import Instance


class MemoryStore(MemoryJobs, MemorySessions, MemoryRegistry, MemoryPost):
    """The store of the embedded default. Two apps that share one are a cluster in one process."""

    def __init__(self, clock: Clock, *, retained_bytes_max: int) -> None:
        MemoryJobs.__init__(self, clock, retained_bytes_max=retained_bytes_max)
        MemorySessions.__init__(self, clock)
        MemoryRegistry.__init__(self, clock)
        MemoryPost.__init__(self, clock)

    async def open(self) -> None:
        """See Store."""

    async def close(self) -> None:
        """See Store."""

    async def join(self, instance: Instance, ttl_ms: int) -> bool:
        """See Store."""
        self._open_inbox(instance.id)
        return await MemoryRegistry.join(self, instance, ttl_ms)

    async def leave(self, instance_id: InstanceId) -> None:
        """See Store."""
        await MemoryRegistry.leave(self, instance_id)
        self._drop_inbox(instance_id)

    async def close_estate(self, dead: InstanceId) -> None:
        """See Store."""
        await MemoryRegistry.close_estate(self, dead)
        if dead not in self._instances:
            self._drop_inbox(dead)

    def flush(self) -> None:
        """See Store."""

    async def sweep(self) -> None:
        """See Store."""
        now_ms = self._clock.now_ms()
        self._sweep_jobs(now_ms)
        self._sweep_sessions(now_ms)
