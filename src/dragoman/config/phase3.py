"""What can be set about choosing in two levels: a pool, then a node in it?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from dragoman.config.section import Conflict, Count, PoolName, Section, Seed, SourceLanguage, TargetLanguage, Text
from dragoman.core.capability import Service
from dragoman.core.language import parse_language

T = TypeVar("T", int, str, tuple[str, str])


class AutoPoolSettings(Section):
    """How pools are made from what the nodes can do."""

    min_nodes_per_pool: Count = Field(default=1, description="A set of fewer nodes gets no pool of its own.")
    max_pools: Count = Field(
        default=100, description="The largest stay; nodes of the dropped ones are served by fallback."
    )
    pool_naming: Literal["set", "pair", "bidirectional"] = Field(
        default="set",
        description="`set`: sorted languages, `en-zh`. `pair`: one pool per direction, `zh-en` = zh to en. "
        "`bidirectional`: both directions in one.",
    )
    require_semantic: bool = Field(
        default=True, description="Whether a node needs the semantic service to join an automatic pool."
    )
    enable_mixed_pools: bool = Field(
        default=False, description='Also pools `*-en`: any source into en, for src_lang = "auto".'
    )


class LanguagePair(Section):
    """One direction that a pool is for."""

    src: SourceLanguage = Field(description="From this language.")
    tgt: TargetLanguage = Field(description="Into this language.")


class ManualPool(Section):
    """A pool defined by hand, used when `auto_generate_language_pools` is false."""

    pool_id: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(description="Its number, unique.")
    name: PoolName = Field(description="Its name, unique; a label of metrics.")
    required_services: Annotated[tuple[Text, ...], Field(strict=False)] = Field(
        default=(), description="Service types or service ids that a node needs to belong to it."
    )
    language_pairs: Annotated[tuple[LanguagePair, ...], Field(strict=False)] = Field(
        default=(), description="What it is for; empty = all."
    )

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        types = {service.value for service in Service}
        for name in self.required_services:
            if name not in types and name.strip().lower() in types:
                yield Conflict(
                    keys=("required_services",),
                    text=f"{name!r} is neither a type of service nor an id; did you mean {name.strip().lower()!r}?",
                )
        for name in _doubled(self.required_services):
            yield Conflict(keys=("required_services",), text=f"{name!r} is there more than once")
        pairs = [(parse_language(pair.src), parse_language(pair.tgt)) for pair in self.language_pairs]
        for src, tgt in _doubled(pairs):
            yield Conflict(keys=("language_pairs",), text=f"{src} to {tgt} is there more than once")
        for src, tgt in dict.fromkeys(pairs):
            if src == tgt:
                yield Conflict(
                    keys=("language_pairs",),
                    text=f"{src} to {tgt} is one language; nobody translates it, so nobody can join the pool",
                )


class TenantOverride(Section):
    """A tenant whose jobs go to one pool."""

    tenant_id: Text = Field(description="The tenant, once in the list.")
    pool_id: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(description="One of the pools defined by hand.")


class Phase3Settings(Section):
    """Two-level choice: a pool, then a node in it."""

    enabled: bool = Field(default=False, description="Whether nodes are chosen by pools.")
    mode: Literal["two_level"] = Field(default="two_level", description="The only one.")
    auto_generate_language_pools: bool = Field(
        default=True, description="Pools from what the nodes can do; false: the pools defined by hand."
    )
    enable_session_affinity: bool = Field(
        default=False,
        description="true: a session keeps its pool and node while they can serve (rendezvous hash); false: random.",
    )
    random_sample_size: Count = Field(default=20, description="Nodes of a pool that are compared for a job.")
    fallback_scan_all_pools: bool = Field(
        default=True,
        description="Whether nodes outside the pools of a job are tried when these are full, or there are none.",
    )
    pool_match_scope: Literal["core_only", "all_required"] = Field(
        default="core_only",
        description="Services that a pool is matched by: recognition, translation and speech, or all a job needs.",
    )
    pool_match_mode: Literal["contains", "exact"] = Field(
        default="contains", description="Whether a pool that can do more than the job needs is eligible."
    )
    strict_pool_eligibility: bool = Field(
        default=False, description="true: no eligible pool = NO_AVAILABLE_NODE, no fallback."
    )
    hash_seed: Seed = Field(default=0, description="The same on all instances; another one deals sessions anew.")
    pools: Annotated[tuple[ManualPool, ...], Field(strict=False)] = Field(
        default=(), description="Pools defined by hand."
    )
    tenant_overrides: Annotated[tuple[TenantOverride, ...], Field(strict=False)] = Field(
        default=(), description="Tenants with a pool of their own."
    )
    auto_pool_config: AutoPoolSettings = Field(default_factory=AutoPoolSettings)

    def conflicts(self) -> Iterator[Conflict]:
        """See Section."""
        pools = self.pools
        if self.enabled and not self.auto_generate_language_pools and not pools:
            yield Conflict(
                keys=("pools", "enabled", "auto_generate_language_pools"),
                text="must define one pool or more, since auto_generate_language_pools = false",
            )
        for pool_id in _doubled(pool.pool_id for pool in pools):
            yield Conflict(keys=("pools",), text=f"pool_id = {pool_id} is there more than once; ids must be unique")
        for name in _doubled(pool.name for pool in pools):
            yield Conflict(keys=("pools",), text=f"name = {name!r} is there more than once; names must be unique")
        for name in _doubled({pool.name: pool.name.casefold() for pool in pools}.values()):
            yield Conflict(keys=("pools",), text=f"name = {name!r} is there in capitals and in small letters")
        for first, second in _alike(pools):
            text = f"{first!r} and {second!r} ask for the same services and languages; make them one"
            yield Conflict(keys=("pools",), text=text)
        yield from self._override_conflicts()

    def _override_conflicts(self) -> Iterator[Conflict]:
        if self.enabled and self.auto_generate_language_pools and self.tenant_overrides:
            yield Conflict(
                keys=("tenant_overrides", "auto_generate_language_pools"),
                text="name pools defined by hand, which auto_generate_language_pools = true leaves out",
            )
        known = sorted({pool.pool_id for pool in self.pools})
        keys = ("tenant_overrides", "pools")
        for tenant in _doubled(override.tenant_id for override in self.tenant_overrides):
            yield Conflict(keys=keys[:1], text=f"tenant_id = {tenant!r} is there more than once")
        for override in self.tenant_overrides:
            if override.pool_id not in known:
                wanted = f"one of {', '.join(map(str, known))}" if known else "a pool of [[scheduler.phase3.pools]]"
                yield Conflict(
                    keys=keys,
                    text=f"pool_id = {override.pool_id} of tenant {override.tenant_id!r} is no pool; must be {wanted}",
                )


def _doubled(values: Iterable[T]) -> list[T]:
    return [value for value, count in Counter(values).items() if count > 1]


def _alike(pools: tuple[ManualPool, ...]) -> Iterator[tuple[str, str]]:
    """Pools that exactly the same nodes would join."""
    known: dict[object, str] = {}
    for pool in pools:
        pairs = frozenset((parse_language(pair.src), parse_language(pair.tgt)) for pair in pool.language_pairs)
        other = known.setdefault((frozenset(pool.required_services), pairs), pool.name)
        if other != pool.name:
            yield other, pool.name
