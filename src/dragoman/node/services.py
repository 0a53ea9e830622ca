"""What can a node be made of? Functions, each with the languages that it serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from dragoman.core.capability import NmtModel, NmtRule, Pair, Service
from dragoman.core.language import AUTO, Language, LanguageTagError, parse_language
from dragoman.node.audio import Audio, Spoken


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a recogniser heard, and in which language, if it can tell."""

    text: str
    language: str | None = None


Recogniser: TypeAlias = Callable[[Audio], Awaitable[str | Recognised] | str | Recognised]
"""From an utterance to its text; for a source language `auto` a Recognised with the language that it heard."""
Translator: TypeAlias = Callable[[str, str, str], Awaitable[str] | str]
"""From a text, its language and the wanted language to the translation. Tags are as the client wrote them: `pt-BR`."""
Speaker: TypeAlias = Callable[[str, str], Awaitable[Audio | Spoken | bytes] | Audio | Spoken | bytes]
"""From a text and its language to speech: an Audio, the bytes of a WAV file, or a Spoken in another format."""
Refiner: TypeAlias = Callable[[str, str], Awaitable[str] | str]
"""From a recognised text and its language to a better text (service type `semantic`)."""
Imitator: TypeAlias = Callable[[Audio, Audio], Awaitable[Audio] | Audio]
"""From speech and an utterance of somebody to the same speech in their voice (service type `tone`)."""

_F = TypeVar("_F", bound=Callable[..., Any])
_Recogniser = TypeVar("_Recogniser", bound=Recogniser)
_Translator = TypeVar("_Translator", bound=Translator)
_Speaker = TypeVar("_Speaker", bound=Speaker)
_Refiner = TypeVar("_Refiner", bound=Refiner)
_Imitator = TypeVar("_Imitator", bound=Imitator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One function of a node, and what it serves. `languages` None is every language."""

    service: Service
    service_id: str
    function: Callable[..., Any]
    languages: frozenset[Language] | None = None
    model: NmtModel | None = None
    formats: frozenset[str] = frozenset()
    device: str = "cpu"
    version: str = "1"

    def serves(self, *languages: Language) -> bool:
        """Whether it serves each of these languages; a translation model: from the first into the second."""
        if self.model is not None:
            return len(languages) == 2 and AUTO not in languages and self.model.covers(*languages)
        return self.languages is None or self.languages.issuperset(languages)


def any_to_any(*languages: str, blocked: Iterable[tuple[str, str]] = ()) -> NmtModel:
    """A translation model that knows all pairs of these languages but the blocked ones."""
    return NmtModel(languages=_languages(languages), rule=NmtRule.ANY_TO_ANY, blocked=_pairs(blocked))


def any_to_english(*languages: str) -> NmtModel:
    """A translation model from each of these languages into English."""
    return NmtModel(languages=_languages(languages), rule=NmtRule.ANY_TO_EN)


def english_to_any(*languages: str) -> NmtModel:
    """A translation model from English into each of these languages."""
    return NmtModel(languages=_languages(languages), rule=NmtRule.EN_TO_ANY)


def only_pairs(*pairs: tuple[str, str]) -> NmtModel:
    """A translation model for these pairs, each of them (from, into)."""
    supported = _pairs(pairs)
    return NmtModel(
        languages=frozenset(language for pair in supported for language in pair),
        rule=NmtRule.SPECIFIC_PAIRS,
        supported=supported,
    )


class Services:
    """The functions of a node. Each may be `async`, or plain: then it runs in a thread and may block.

    Of several functions for one service the first that serves the language does the work.
    """

    def __init__(self) -> None:
        self._offers: list[Offer] = []
        self._absent: dict[Service, str] = {}

    @property
    def offers(self) -> tuple[Offer, ...]:
        """All functions, in the order in which they came."""
        return tuple(self._offers)

    def recognises(
        self, *languages: str, formats: Iterable[str] = (), service_id: str | None = None, device: str = "cpu"
    ) -> Callable[[_Recogniser], _Recogniser]:
        """Offer a function that writes down speech in these languages; none named: in any.

        PCM and WAV come as PCM; audio in one of `formats`, such as "opus", comes as the client sent it.
        """
        served, raw = _languages(languages) or None, frozenset(formats)

        def offer(function: _Recogniser) -> _Recogniser:
            return self._add(Service.ASR, function, service_id, device, languages=served, formats=raw)

        return offer

    def translates(
        self,
        *pairs: tuple[str, str],
        model: NmtModel | None = None,
        service_id: str | None = None,
        device: str = "cpu",
    ) -> Callable[[_Translator], _Translator]:
        """Offer a function that translates these pairs, each of them (from, into).

        For many languages give a `model` instead: any_to_any, any_to_english or english_to_any.
        """
        if bool(pairs) == (model is not None):
            raise ValueError('translates() wants either pairs like ("en", "pt") or model=any_to_any("en", "pt")')
        known = model or only_pairs(*pairs)

        def offer(function: _Translator) -> _Translator:
            return self._add(Service.NMT, function, service_id, device, model=known)

        return offer

    def speaks(
        self, *languages: str, service_id: str | None = None, device: str = "cpu"
    ) -> Callable[[_Speaker], _Speaker]:
        """Offer a function that says a text aloud in these languages; none named: in any."""
        served = _languages(languages) or None

        def offer(function: _Speaker) -> _Speaker:
            return self._add(Service.TTS, function, service_id, device, languages=served)

        return offer

    def refines(
        self, *languages: str, service_id: str | None = None, device: str = "cpu"
    ) -> Callable[[_Refiner], _Refiner]:
        """Offer a function that repairs recognised text in these languages; none named: in any (type `semantic`)."""
        served = _languages(languages) or None

        def offer(function: _Refiner) -> _Refiner:
            return self._add(Service.SEMANTIC, function, service_id, device, languages=served)

        return offer

    def imitates(self, *, service_id: str | None = None, device: str = "cpu") -> Callable[[_Imitator], _Imitator]:
        """Offer a function that gives speech the voice of the one who spoke (type `tone`)."""

        def offer(function: _Imitator) -> _Imitator:
            return self._add(Service.TONE, function, service_id, device)

        return offer

    def absent(self, service: Service, reason: str) -> None:
        """Tell the scheduler why there is no such service here; what is offered all the same wins."""
        self._absent.setdefault(service, reason)

    def include(self, others: Services) -> None:
        """Take in the functions of others, behind those that are here already."""
        for offer in others.offers:
            self._insert(offer)
        for service, reason in others._absent.items():
            self.absent(service, reason)

    def find(self, service: Service, *languages: Language) -> Offer | None:
        """The first function that serves these languages."""
        return next((offer for offer in self.of(service) if offer.serves(*languages)), None)

    def of(self, service: Service) -> tuple[Offer, ...]:
        """All functions for one service."""
        return tuple(offer for offer in self._offers if offer.service is service)

    def why_absent(self, service: Service) -> str:
        """Why there is no function for a service."""
        return self._absent.get(service, "this node has no such service")

    def _add(self, service: Service, function: _F, service_id: str | None, device: str, **served: Any) -> _F:
        if not callable(function):
            raise TypeError(f"a service is a function; got {type(function).__name__}")
        name = service_id or f"{service}-{getattr(function, '__name__', type(function).__name__)}"
        self._insert(Offer(service=service, service_id=name, function=function, device=device, **served))
        return function

    def _insert(self, offer: Offer) -> None:
        if any(known.service_id == offer.service_id for known in self._offers):
            raise ValueError(f"two services are called {offer.service_id!r}; give one another service_id")
        self._offers.append(offer)


def _languages(tags: Iterable[str]) -> frozenset[Language]:
    languages = frozenset(parse_language(tag) for tag in tags)
    if AUTO in languages:
        raise LanguageTagError("'auto' is no language to serve; name the languages, or none for all")
    return languages


def _pairs(pairs: Iterable[tuple[str, str]]) -> frozenset[Pair]:
    return frozenset((parse_language(src), parse_language(tgt)) for src, tgt in pairs)
