"""How is everything remembered that several instances must agree on? On a Redis or Valkey, single or Cluster."""

from __future__ import annotations

import asyncio

from dragoman.clock import Clock
from dragoman.config.phase2 import Phase2Settings
from dragoman.store.redis import jobs, post, registry, sessions
from dragoman.store.redis.jobs import RedisJobs
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.post import RedisPost
from dragoman.store.redis.registry import RedisRegistry
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import make_servers
from dragoman.store.redis.sessions import RedisSessions

SCRIPTS = (*jobs.SCRIPTS, *sessions.SCRIPTS, *registry.SCRIPTS, *post.SCRIPTS)


class RedisStore(RedisJobs, RedisSessions, RedisRegistry, RedisPost):
    """The store of many instances. Times in milliseconds."""

    def __init__(
        self,
        settings: Phase2Settings,
        clock: Clock,
        *,
        job_ttl_ms: int,
        retained_bytes_max: int,
        resume_window_ms: int,
    ) -> None:
        """`job_ttl_ms` must be longer than any job can take between two moves."""
        servers = make_servers(settings.redis, SCRIPTS)
        patience_ms = settings.stream_block_ms + settings.redis.command_timeout_ms
        reader = make_servers(settings.redis, (), command_timeout_ms=patience_ms)
        keys = Keys(settings.redis.key_prefix)
        time = ServerTime(clock)
        RedisJobs.__init__(
            self, servers, keys, clock, time, job_ttl_ms=job_ttl_ms, retained_bytes_max=retained_bytes_max
        )
        RedisSessions.__init__(
            self, servers, keys, time, owner_ttl_ms=settings.owner_ttl_seconds * 1000, keep_ms=resume_window_ms
        )
        RedisRegistry.__init__(self, servers, keys, time)
        RedisPost.__init__(
            self,
            servers,
            reader,
            keys,
            time,
            group=settings.stream_group,
            length_max=settings.stream_maxlen,
            dead_max=settings.dlq_maxlen,
        )

    async def open(self) -> None:
        """See Store."""
        await self._servers.open()
        await self._reader.open()
        await self._measure_time()

    async def close(self) -> None:
        """See Store."""
        await asyncio.gather(self._servers.close(), self._reader.close())

    def flush(self) -> None:
        """See Store."""
        self._servers.flush()

    async def sweep(self) -> None:
        """See Store. Everything on the server has a time to live of its own."""
