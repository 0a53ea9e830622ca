"""What can a node do, what does a job need, and do the two match?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from dragoman.core.ids import NodeId, TenantId
from dragoman.core.language import AUTO, Language

ENGLISH = Language("en")
_ANY_OTHER = Language("und")  # BCP 47 for a language that is not known

Pair: TypeAlias = tuple[Language, Language]
"""From a language (perhaps AUTO) into a language."""


class Service(StrEnum):
    """One step of translating speech."""

    ASR = "asr"
    NMT = "nmt"
    TTS = "tts"
    TONE = "tone"
    SEMANTIC = "semantic"


class NmtRule(StrEnum):
    """Which pairs a translation model covers, given its languages."""

    ANY_TO_ANY = "any_to_any"
    ANY_TO_EN = "any_to_en"
    EN_TO_ANY = "en_to_any"
    SPECIFIC_PAIRS = "specific_pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class NmtModel:
    """One translation model of a node."""

    languages: frozenset[Language]
    rule: NmtRule
    supported: frozenset[Pair] = frozenset()
    blocked: frozenset[Pair] = frozenset()

    def covers(self, src: Language, tgt: Language) -> bool:
        """Whether it translates from `src`, which is not AUTO, into `tgt`."""
        if (src, tgt) in self.blocked:
            return False
        match self.rule:
            case NmtRule.ANY_TO_ANY:
                return src in self.languages and tgt in self.languages
            case NmtRule.ANY_TO_EN:
                return tgt == ENGLISH and src in self.languages
            case NmtRule.EN_TO_ANY:
                return src == ENGLISH and tgt in self.languages
            case NmtRule.SPECIFIC_PAIRS:
                return (src, tgt) in self.supported

    def sources(self) -> Iterable[Language]:
        """Every language that it may translate from."""
        return self.languages | {ENGLISH} | {src for src, _ in self.supported}


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """Which languages a node serves. None restricts nothing (the node said nothing); empty allows nothing."""

    asr: frozenset[Language] | None = None
    tts: frozenset[Language] | None = None
    semantic: frozenset[Language] | None = None
    nmt: tuple[NmtModel, ...] | None = None
    pairs: frozenset[Pair] | None = None

    def serve(self, services: frozenset[Service], src: Language, tgt: Language) -> bool:
        """Whether each of the services is there for speech in `src` that is to become `tgt`.

        With AUTO: for speech in some one language, which is not `tgt` when it is to be translated.
        """
        if src == AUTO:
            sources = self._sources() - ({tgt} if Service.NMT in services else set())
            return any(self.serve(services, known, tgt) for known in sources)
        return (
            (Service.ASR not in services or self.asr is None or src in self.asr)
            and (Service.NMT not in services or self._translates(src, tgt))
            and (Service.TTS not in services or self.tts is None or tgt in self.tts)
            and (Service.SEMANTIC not in services or self.semantic is None or src in self.semantic)
        )

    def _translates(self, src: Language, tgt: Language) -> bool:
        by_model = self.nmt is None or any(model.covers(src, tgt) for model in self.nmt)
        return by_model and (self.pairs is None or (src, tgt) in self.pairs)

    def _sources(self) -> set[Language]:
        """Every language that it names, and one that stands for all others."""
        by_model = (model.sources() for model in self.nmt or ())
        by_pair = (src for src, _ in self.pairs or ())
        return {_ANY_OTHER}.union(self.asr or (), self.semantic or (), by_pair, *by_model)


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """What a node must be able to do to take a job, and for whom.

    Needs are few and asked about all the time, so `need()` makes one object of equal ones: they compare and hash by
    identity, and each node remembers its verdict on each.
    """

    services: frozenset[Service]
    pairs: tuple[Pair, ...]
    tenant: TenantId | None
    preferred: NodeId | None
    """The node that was asked for by name; others serve too."""


@lru_cache(maxsize=4096)
def need(
    services: frozenset[Service],
    pairs: tuple[Pair, ...],
    tenant: TenantId | None = None,
    preferred: NodeId | None = None,
) -> Need:
    """The need for these services, in all of these pairs, for this tenant."""
    return Need(services, pairs, tenant, preferred)
