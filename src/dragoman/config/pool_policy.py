"""What do the settings want of pools, in the words of the core?"""

from __future__ import annotations

from dragoman.config.phase3 import ManualPool, Phase3Settings
from dragoman.core.capability import Service
from dragoman.core.ids import TenantId
from dragoman.core.language import parse_language
from dragoman.core.pools import Match, Naming, Pool, PoolPolicy, Scope

_TYPES = {service.value: service for service in Service}


def pool_policy(settings: Phase3Settings) -> PoolPolicy:
    """The policy that the settings ask for."""
    automatic = settings.auto_pool_config
    by_hand = not settings.auto_generate_language_pools
    names = {pool.pool_id: pool.name for pool in settings.pools}
    return PoolPolicy(
        is_on=settings.enabled,
        naming=Naming(automatic.pool_naming),
        requires_semantic=automatic.require_semantic,
        nodes_min=automatic.min_nodes_per_pool,
        pools_max=automatic.max_pools,
        has_mixed=automatic.enable_mixed_pools,
        manual=tuple(_pool(pool) for pool in settings.pools) if by_hand else None,
        overrides={TenantId(entry.tenant_id): names[entry.pool_id] for entry in settings.tenant_overrides},
        scope=Scope(settings.pool_match_scope),
        match=Match(settings.pool_match_mode),
        is_strict=settings.strict_pool_eligibility,
        leaves_pools=settings.fallback_scan_all_pools,
        sample_size=settings.random_sample_size,
        has_affinity=settings.enabled and settings.enable_session_affinity,
        hash_seed=settings.hash_seed,
    )


def _pool(pool: ManualPool) -> Pool:
    pairs = frozenset((parse_language(pair.src), parse_language(pair.tgt)) for pair in pool.language_pairs)
    return Pool(
        name=pool.name,
        pairs=pairs or None,
        services=frozenset(_TYPES[name] for name in pool.required_services if name in _TYPES),
        service_ids=frozenset(name for name in pool.required_services if name not in _TYPES),
    )
