"""What can be set about many instances over one Redis or Valkey?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from dragoman.config.redis_url import RedisUrl, redis_url_flaws
from dragoman.config.section import (
    Conflict,
    Count,
    KeyPart,
    Milliseconds,
    Seconds,
    SecondsOrZero,
    Section,
)


class RedisSettings(Section):
    """The shared store."""

    mode: Literal["single", "cluster"] = Field(
        default="single", description="One server (or a primary with replicas), or a Redis Cluster."
    )
    url: RedisUrl = Field(
        default=RedisUrl("redis://127.0.0.1:6379"),
        description="Address in mode `single`: `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`, with "
        "user, password and database.",
    )
    cluster_urls: Annotated[tuple[RedisUrl, ...], Field(strict=False)] = Field(
        default=(), description="Addresses to begin with in mode `cluster`; the rest of the cluster is found from them."
    )
    key_prefix: KeyPart = Field(
        default="lingua", description="First part of every key: keeps apart clusters that share a server."
    )
    connect_timeout_ms: Milliseconds = Field(default=2000, description="How long connecting may take.")
    command_timeout_ms: Milliseconds = Field(default=2000, description="How long one command may take.")


class NodeSnapshotSettings(Section):
    """What the instances tell each other about their nodes."""

    enabled: bool = Field(default=True, description="Whether nodes of other instances are seen.")
    presence_ttl_seconds: Seconds = Field(
        default=45, description="How long a node counts as present after its last sign of life."
    )
    refresh_interval_ms: Milliseconds = Field(
        default=2000, description="How often the whole picture is read again, besides the changes as they come."
    )
    remove_stale_after_seconds: SecondsOrZero = Field(
        default=600, description="When a node that is gone is forgotten; 0 = never."
    )

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        if self.refresh_interval_ms >= self.presence_ttl_seconds * 1000:
            yield Conflict(
                keys=("refresh_interval_ms", "presence_ttl_seconds"),
                text=f"must be shorter than presence_ttl_seconds = {self.presence_ttl_seconds}",
            )


class Phase2Settings(Section):
    """Many instances over one Redis or Valkey."""

    enabled: bool = Field(default=False, description="Whether this instance shares its work with others.")
    instance_id: KeyPart = Field(
        default="auto",
        description="Unique per instance; `auto` = host-pid-random. While another holds the same id, it refuses to "
        "start.",
    )
    owner_ttl_seconds: Seconds = Field(
        default=45,
        description="How long a connection's owner is believed without renewal: a bound, not a wait, since a reconnect "
        "elsewhere takes over at once.",
    )
    instance_presence_ttl_seconds: Seconds = Field(
        default=10, description="How soon the survivors know that an instance died."
    )
    stream_block_ms: Milliseconds = Field(default=1000, description="How long one read of the inbox waits.")
    stream_count: Count = Field(default=64, description="Messages per read of the inbox.")
    stream_group: KeyPart = Field(default="scheduler", description="Name of the consumer group.")
    stream_maxlen: Count = Field(
        default=10_000,
        description="Length of an inbox as a safety valve: near it the sender holds back; nothing unread is trimmed.",
    )
    dlq_enabled: bool = Field(default=True, description="Whether messages nobody could deliver are kept aside.")
    dlq_maxlen: Count = Field(default=10_000, description="How many of them are kept.")
    dlq_max_deliveries: Count = Field(default=10, description="Attempts before a message is put aside.")
    dlq_min_idle_ms: Milliseconds = Field(
        default=60_000, description="How long a message must lie unacknowledged before another takes it."
    )
    dlq_scan_interval_ms: Milliseconds = Field(default=5000, description="How often such messages are looked for.")
    dlq_scan_count: Count = Field(default=100, description="How many are looked at each time.")
    redis: RedisSettings = Field(default_factory=RedisSettings)
    node_snapshot: NodeSnapshotSettings = Field(default_factory=NodeSnapshotSettings)

    def conflicts(self) -> Iterator[Conflict]:
        """See Section. Addresses matter only when they are used."""
        if not self.enabled:
            return
        redis = self.redis
        if redis.mode == "single":
            for flaw in redis_url_flaws(redis.url, is_cluster=False):
                yield Conflict(keys=("redis.url", "redis.mode", "enabled"), text=flaw)
            return
        keys = ("redis.cluster_urls", "redis.mode", "enabled")
        if not redis.cluster_urls:
            yield Conflict(keys=keys, text='must name one address or more, since mode = "cluster"')
        for url in redis.cluster_urls:
            for flaw in redis_url_flaws(url, is_cluster=True):
                yield Conflict(keys=keys, text=f"{url} {flaw}")
