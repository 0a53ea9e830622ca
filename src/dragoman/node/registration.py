"""What does the node tell the scheduler about itself: services, languages, machine, load?"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from dragoman import __version__
from dragoman.core.capability import NmtRule, Pair, Service
from dragoman.core.language import Language
from dragoman.node.services import Offer, Services
from dragoman.protocol.node_messages import (
    CapabilityByType,
    Gpu,
    Hardware,
    InstalledModel,
    InstalledService,
    LanguageDeclaration,
    NmtDeclaration,
    NodeHeartbeat,
    NodeRegister,
    PairDeclaration,
    ResourceUsage,
)

_SCHEMA_VERSION: Final = "2.0"
_WINDOW_S: Final = 0.1
"""psutil means the load since it was last asked; over a shorter time than this it is noise."""


class Machine:
    """The computer that the node runs on."""

    def __init__(self) -> None:
        self._cpu_percent = psutil.cpu_percent(interval=_WINDOW_S)
        self._asked = time.monotonic()

    def cpu_percent(self) -> float:
        """How busy all cores were since the last question, 0 to 100."""
        now = time.monotonic()
        if now - self._asked >= _WINDOW_S:
            self._cpu_percent = psutil.cpu_percent(interval=None)
            self._asked = now
        return float(self._cpu_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the operator says about the node, beside what its functions say."""

    slots: int
    tenant_id: str | None = None
    accept_public_jobs: bool = True
    gpus: Sequence[Gpu] = ()
    features: dict[str, Any] = field(default_factory=dict)


def register(services: Services, identity: Identity, node_id: str | None) -> NodeRegister:
    """The node's first message; `node_id` None asks the scheduler for an id."""
    memory_gb = round(psutil.virtual_memory().total / 2**30, 2)
    cores = psutil.cpu_count(logical=True) or 1
    has_asr = bool(services.of(Service.ASR))
    return NodeRegister(
        node_id=node_id,
        version=__version__,
        capability_schema_version=_SCHEMA_VERSION,
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        hardware=Hardware(cpu_cores=cores, memory_gb=memory_gb, gpus=list(identity.gpus) or None),
        installed_models=[
            InstalledModel(model_id=offer.service_id, kind=offer.service, version=offer.version)
            for offer in services.offers
        ],
        installed_services=_installed(services),
        capability_by_type=_capabilities(services),
        features_supported={"streaming_asr": has_asr, **identity.features},
        accept_public_jobs=identity.accept_public_jobs,
        language_capabilities=_declare(services),
        max_concurrent_jobs=identity.slots,
        tenant_id=identity.tenant_id,
    )


def heartbeat(
    services: Services, machine: Machine, *, node_id: str, running_ids: Sequence[str], busy_count: int
) -> NodeHeartbeat:
    """How the node does at this moment."""
    return NodeHeartbeat(
        node_id=node_id,
        timestamp=time.time_ns() // 1_000_000,
        resource_usage=ResourceUsage(
            cpu_percent=machine.cpu_percent(),
            mem_percent=float(psutil.virtual_memory().percent),
            running_jobs=busy_count,
        ),
        installed_services=_installed(services),
        capability_by_type=_capabilities(services),
        running_job_ids=list(running_ids),
    )


def _installed(services: Services) -> list[InstalledService]:
    return [
        InstalledService(
            service_id=offer.service_id,
            type=offer.service,
            device=offer.device,
            status="running",
            version=offer.version,
        )
        for offer in services.offers
    ]


def _capabilities(services: Services) -> list[CapabilityByType]:
    capabilities = []
    for service in Service:
        ids = [offer.service_id for offer in services.of(service)]
        reason = None if ids else services.why_absent(service)[:1024]
        ready_ids = list[str](ids) or None
        capabilities.append(CapabilityByType(type=service, ready=bool(ids), reason=reason, ready_impl_ids=ready_ids))
    return capabilities


def _declare(services: Services) -> LanguageDeclaration:
    return LanguageDeclaration(
        asr_languages=_served(services.of(Service.ASR)),
        tts_languages=_served(services.of(Service.TTS)),
        semantic_languages=_served(services.of(Service.SEMANTIC)),
        nmt_capabilities=[_declare_model(offer) for offer in services.of(Service.NMT)],
    )


def _served(offers: Sequence[Offer]) -> list[str] | None:
    """The languages of all offers together; None, if one of them serves every language."""
    served: set[Language] = set()
    for offer in offers:
        if offer.languages is None:
            return None
        served |= offer.languages
    return sorted(served)


def _declare_model(offer: Offer) -> NmtDeclaration:
    model = offer.model
    assert model is not None
    is_specific = model.rule is NmtRule.SPECIFIC_PAIRS
    return NmtDeclaration(
        model_id=offer.service_id,
        languages=sorted(model.languages),
        rule=model.rule.value,
        supported_pairs=_pairs(model.supported) if is_specific else None,
        blocked_pairs=_pairs(model.blocked) or None,
    )


def _pairs(pairs: frozenset[Pair]) -> list[PairDeclaration]:
    return [PairDeclaration(src=src, tgt=tgt) for src, tgt in sorted(pairs)]
