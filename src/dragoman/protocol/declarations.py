"""What does a node say it can do? From its messages to the node that selection knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dragoman.core.capability import Languages, NmtModel, NmtRule, Pair, Service
from dragoman.core.ids import NodeId, TenantId
from dragoman.core.language import AUTO, Language, LanguageTagError, parse_language
from dragoman.core.node import Node
from dragoman.protocol.codec import FormatError
from dragoman.protocol.node_messages import (
    CapabilityByType,
    InstalledModel,
    InstalledService,
    LanguageDeclaration,
    NodeHeartbeat,
    NodeRegister,
    PairDeclaration,
    ResourceUsage,
)

_KNOWN_TYPES = {service.value: service for service in Service}
_SERVICE_IDS_MAX = 4000
"""Names remembered of one node: more than a message can list, few enough for one that lists others each time."""


def read_register(register: NodeRegister, node_id: NodeId, *, slots_default: int) -> Node:
    """The node that registers. Raises FormatError for a language tag that is none."""
    slots = register.max_concurrent_jobs
    return Node(
        id=node_id,
        slots=slots_default if slots is None else slots,
        services=_ready(register.capability_by_type),
        languages=_languages(register.language_capabilities, register.installed_models),
        tenant=None if register.tenant_id is None else TenantId(register.tenant_id),
        accepts_public=register.accept_public_jobs,
        service_ids=_service_ids(register.installed_services or (), register.installed_models),
    )


def read_heartbeat(heartbeat: NodeHeartbeat, known: Node) -> Node:
    """The node as its heartbeat describes it; what the heartbeat leaves out is as before. Raises FormatError."""
    declared = heartbeat.language_capabilities
    models = heartbeat.installed_models
    named = dict(() if models is not None else known.service_ids)
    named |= dict(_service_ids(heartbeat.installed_services, models or ()))
    return replace(
        known,
        services=_ready(heartbeat.capability_by_type),
        languages=known.languages if declared is None else _languages(declared, ()),
        service_ids=tuple(named.items())[-_SERVICE_IDS_MAX:] or known.service_ids,
    )


def is_plausible(usage: ResourceUsage) -> bool:
    """Whether the figures can be true: percentages of a whole."""
    figures = (usage.cpu_percent, usage.mem_percent, usage.gpu_percent or 0.0, usage.gpu_mem_percent or 0.0)
    return all(0 <= figure <= 100 for figure in figures)


def busiest(usage: ResourceUsage) -> float:
    """The percentage of the resource that is used most."""
    return max(usage.cpu_percent, usage.mem_percent, usage.gpu_percent or 0.0, usage.gpu_mem_percent or 0.0)


def _ready(capabilities: Iterable[CapabilityByType]) -> frozenset[Service]:
    return frozenset(_KNOWN_TYPES[item.type] for item in capabilities if item.ready and item.type in _KNOWN_TYPES)


def _languages(declared: LanguageDeclaration | None, models: Sequence[InstalledModel]) -> Languages:
    if declared is None:
        return _languages_of_models([model for model in models if model.enabled is not False])
    nmt = declared.nmt_capabilities
    return Languages(
        asr=_tags("asr_languages", declared.asr_languages),
        tts=_tags("tts_languages", declared.tts_languages),
        semantic=_tags("semantic_languages", declared.semantic_languages),
        nmt=None
        if nmt is None
        else tuple(
            NmtModel(
                languages=_tags("nmt_capabilities.languages", model.languages) or frozenset(),
                rule=NmtRule(model.rule),
                supported=_pairs("nmt_capabilities.supported_pairs", model.supported_pairs) or frozenset(),
                blocked=_pairs("nmt_capabilities.blocked_pairs", model.blocked_pairs) or frozenset(),
            )
            for model in nmt
        ),
        pairs=_pairs("supported_language_pairs", declared.supported_language_pairs),
    )


def _languages_of_models(models: Sequence[InstalledModel]) -> Languages:
    """What the list of models tells when the node declares no languages; a model without one restricts nothing."""
    asr = [model.src_lang for model in models if model.kind == "asr"]
    tts = [model.tgt_lang or model.src_lang for model in models if model.kind == "tts"]
    nmt = [(model.src_lang, model.tgt_lang) for model in models if model.kind == "nmt"]
    pairs = [PairDeclaration(src=src, tgt=tgt) for src, tgt in nmt if src and tgt and _all_or_none([src, tgt])]
    return Languages(
        asr=_tags("installed_models.src_lang", _all_or_none(asr)),
        tts=_tags("installed_models.tgt_lang", _all_or_none(tts)),
        pairs=_pairs("installed_models", pairs) if pairs and len(pairs) == len(nmt) else None,
    )


def _all_or_none(tags: list[str | None]) -> list[str] | None:
    named = [tag for tag in tags if tag is not None and tag.lower() != AUTO]
    return named if named and len(named) == len(tags) else None


def _tags(field: str, tags: list[str] | None) -> frozenset[Language] | None:
    if tags is None:
        return None
    return frozenset(language for tag in tags if (language := _language(field, tag)) != AUTO)


def _pairs(field: str, pairs: list[PairDeclaration] | None) -> frozenset[Pair] | None:
    if pairs is None:
        return None
    return frozenset((_language(field, pair.src), _language(field, pair.tgt)) for pair in pairs)


def _language(field: str, tag: str) -> Language:
    try:
        return parse_language(tag)
    except LanguageTagError as error:
        raise FormatError(f"{field}: {error}") from error


def _service_ids(
    services: Sequence[InstalledService], models: Sequence[InstalledModel]
) -> tuple[tuple[str, Service], ...]:
    named = [(item.service_id, item.type) for item in services]
    named += [(item.model_id, item.type) for item in services if item.model_id]
    named += [(item.model_id, item.kind) for item in models]
    return tuple((name, _KNOWN_TYPES[kind]) for name, kind in named if kind in _KNOWN_TYPES)
