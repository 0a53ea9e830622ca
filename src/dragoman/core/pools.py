"""Which pools are there, and which of them does a node belong to?

A pool is a name for what nodes can do. Which there are is a function of the nodes that are connected and of the
policy, and of nothing else: every instance comes to the same pools, in whatever order it heard of the nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Final

from dragoman.core.capability import ENGLISH, Languages, Need, NmtModel, NmtRule, Pair, Service
from dragoman.core.ids import TenantId
from dragoman.core.language import AUTO, Language
from dragoman.core.node import Node

CORE: Final = frozenset({Service.ASR, Service.NMT, Service.TTS})
LANGUAGES_MAX: Final = 64
"""A node of more languages is a generalist: a name of all of them would be no name."""
DIRECTIONS_MAX: Final = 256
"""A node that translates in more directions is a generalist, rather than in hundreds of pools."""


_TRIALS_MAX: Final = 100_000
"""Directions times models that are tried for one node: one of more is a generalist, and holds up nobody."""


class Naming(StrEnum):
    """What an automatic pool stands for."""

    SET = "set"
    PAIR = "pair"
    BIDIRECTIONAL = "bidirectional"


class Scope(StrEnum):
    """Which services of a job must be those of a pool."""

    CORE_ONLY = "core_only"
    ALL_REQUIRED = "all_required"


class Match(StrEnum):
    """How the services of a job and of a pool must compare."""

    CONTAINS = "contains"
    EXACT = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Nodes that can do the same thing, as a name and what it stands for. None restricts nothing."""

    name: str
    languages: frozenset[Language] | None = None
    """Any of these into any other of these."""
    pairs: frozenset[Pair] | None = None
    target: Language | None = None
    """Of a mixed pool: whatever is spoken, into this."""
    services: frozenset[Service] = frozenset()
    """Asked of a node that is to belong to it, by type."""
    service_ids: frozenset[str] = frozenset()
    """Asked of it by name."""

    def is_for(self, pair: Pair) -> bool:
        """Whether it stands for speech in one language that is to become the other."""
        src, tgt = pair
        if self.target is not None:
            return src == AUTO and tgt == self.target
        if self.pairs is not None:
            return any(to == tgt and (known == src or AUTO in (src, known)) for known, to in self.pairs)
        return self.languages is None or (tgt in self.languages and (src == AUTO or src in self.languages))


EVERYBODY: Final = Pool(name="(all)")
"""The one pool there is when nodes are not chosen by pools."""
GENERALISTS: Final = Pool(name="*")
"""Nodes that do not say which languages they are for, or too many to name."""
OUTSIDE: Final = "(outside)"
"""Stands in figures for the nodes that belong to no pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPolicy:
    """What the operator wants of pools."""

    is_on: bool = False
    """Off: one pool of everybody."""
    naming: Naming = Naming.SET
    requires_semantic: bool = True
    nodes_min: int = 1
    pools_max: int = 100
    has_mixed: bool = False
    manual: tuple[Pool, ...] | None = None
    """Pools defined by hand; None: automatic ones."""
    overrides: Mapping[TenantId, str] = field(default_factory=dict)
    """Tenants that have a pool of their own, by its name."""
    scope: Scope = Scope.CORE_ONLY
    match: Match = Match.CONTAINS
    is_strict: bool = False
    """Whether a job for which there is no pool is refused."""
    leaves_pools: bool = True
    """Whether nodes outside the pools of a job are tried once these are full."""
    sample_size: int = 20
    has_affinity: bool = False
    hash_seed: int = 0

    @property
    def service_ids(self) -> frozenset[str]:
        """The names of services that decide to which pools a node belongs."""
        return frozenset().union(*(pool.service_ids for pool in self.manual or ()))

    @property
    def forbids(self) -> bool:
        """Whether a node may be out of bounds for a job that it could do."""
        return self.is_on and (self.is_strict or not self.leaves_pools)


def plan_pools(nodes: Iterable[Node], policy: PoolPolicy) -> tuple[Pool, ...]:
    """The pools of the nodes that are connected, by name."""
    counts: Counter[Pool] = Counter()
    for node in nodes:
        counts.update(pools_of(node, policy))
    ranked = sorted(counts, key=lambda pool: (-counts[pool], pool.name))
    stay = [pool for pool in ranked if counts[pool] >= nodes_min(policy)][: pools_max(policy)]
    return tuple(sorted(stay, key=lambda pool: pool.name))


def nodes_min(policy: PoolPolicy) -> int:
    """How many nodes a pool needs to be one."""
    return policy.nodes_min if policy.is_on and policy.manual is None else 1


def pools_max(policy: PoolPolicy) -> int:
    """How many pools there may be."""
    return policy.pools_max if policy.is_on and policy.manual is None else max(1, len(policy.manual or ()))


def pools_of(node: Node, policy: PoolPolicy) -> tuple[Pool, ...]:
    """The pools that a node belongs to, as far as they exist."""
    if not policy.is_on:
        return (EVERYBODY,)
    if policy.manual is not None:
        return tuple(pool for pool in policy.manual if belongs(node, pool))
    if Service.NMT not in node.services or (policy.requires_semantic and Service.SEMANTIC not in node.services):
        return ()
    asked = node.services & (CORE | {Service.SEMANTIC} if policy.requires_semantic else CORE)
    return _automatic(node.languages, frozenset(asked), policy.naming, policy.has_mixed)


def belongs(node: Node, pool: Pool) -> bool:
    """Whether a node belongs to a pool defined by hand: it has all that it asks for, and serves one of its pairs."""
    if not pool.services <= node.services or not pool.service_ids <= {name for name, _ in node.service_ids}:
        return False
    asked = (pool.services or node.services) & CORE
    return pool.pairs is None or any(node.languages.serve(frozenset(asked), src, tgt) for src, tgt in pool.pairs)


def is_for(pool: Pool, node: Node, need: Need, policy: PoolPolicy) -> bool:
    """Whether a pool, and a node in it, are for a need: by the languages, and in a pool made by hand the services.

    What the node can do is another question; this is about what it is there for.
    """
    if need.pairs and not any(pool.is_for(pair) for pair in need.pairs):
        return False
    if not pool.services and not pool.service_ids:
        return True
    wanted = need.services if policy.scope is Scope.ALL_REQUIRED else need.services & CORE
    offered = pool.services | {kind for name, kind in node.service_ids if name in pool.service_ids}
    if policy.scope is Scope.CORE_ONLY:
        offered &= CORE
    return wanted == offered if policy.match is Match.EXACT else wanted <= offered


# --- automatic pools


@lru_cache(maxsize=4096)
def _automatic(
    languages: Languages,
    services: frozenset[Service],
    naming: Naming,
    has_mixed: bool,  # noqa: FBT001
) -> tuple[Pool, ...]:
    sources, targets = _sources(languages, services), _targets(languages, services)
    if sources is None or targets is None or len(sources | targets) > LANGUAGES_MAX:
        return (GENERALISTS,)
    if len(sources) * len(targets) * len(languages.nmt or (1,)) > _TRIALS_MAX:
        return (GENERALISTS,)
    found = frozenset(
        (src, tgt) for src in sources for tgt in targets if src != tgt and languages.serve(services, src, tgt)
    )
    if not found:
        return ()
    pools = _named(found, naming)
    if has_mixed:
        pools += tuple(Pool(name=f"*-{tgt}", target=tgt) for tgt in sorted({tgt for _, tgt in found}))
    return pools


def _named(found: frozenset[Pair], naming: Naming) -> tuple[Pool, ...]:
    if naming is Naming.SET:
        languages = frozenset(language for pair in found for language in pair)
        return (Pool(name="-".join(sorted(languages)), languages=languages),)
    if len(found) > DIRECTIONS_MAX:
        return (GENERALISTS,)
    if naming is Naming.PAIR:
        return tuple(Pool(name=f"{src}-{tgt}", pairs=frozenset({(src, tgt)})) for src, tgt in sorted(found))
    both = sorted({(min(pair), max(pair)) for pair in found})
    return tuple(Pool(name=f"{a}-{b}", pairs=frozenset({(a, b), (b, a)})) for a, b in both)


def _sources(languages: Languages, services: frozenset[Service]) -> frozenset[Language] | None:
    """Every language that may be spoken to such a node; None when it does not say."""
    limits = [languages.asr if Service.ASR in services else None]
    limits.append(languages.semantic if Service.SEMANTIC in services else None)
    if languages.nmt is not None:
        limits.append(frozenset().union(*(_model_sources(model) for model in languages.nmt)))
    limits.append(None if languages.pairs is None else frozenset(src for src, _ in languages.pairs))
    return _intersection(limits)


def _targets(languages: Languages, services: frozenset[Service]) -> frozenset[Language] | None:
    """Every language that such a node may answer in; None when it does not say."""
    limits = [languages.tts if Service.TTS in services else None]
    if languages.nmt is not None:
        limits.append(frozenset().union(*(_model_targets(model) for model in languages.nmt)))
    limits.append(None if languages.pairs is None else frozenset(tgt for _, tgt in languages.pairs))
    return _intersection(limits)


def _model_sources(model: NmtModel) -> frozenset[Language]:
    match model.rule:
        case NmtRule.ANY_TO_ANY | NmtRule.ANY_TO_EN:
            return model.languages
        case NmtRule.EN_TO_ANY:
            return frozenset({ENGLISH})
        case NmtRule.SPECIFIC_PAIRS:
            return frozenset(src for src, _ in model.supported)


def _model_targets(model: NmtModel) -> frozenset[Language]:
    match model.rule:
        case NmtRule.ANY_TO_ANY | NmtRule.EN_TO_ANY:
            return model.languages
        case NmtRule.ANY_TO_EN:
            return frozenset({ENGLISH})
        case NmtRule.SPECIFIC_PAIRS:
            return frozenset(tgt for _, tgt in model.supported)


def _intersection(limits: list[frozenset[Language] | None]) -> frozenset[Language] | None:
    known = [limit for limit in limits if limit is not None]
    return frozenset.intersection(*known) if known else None
