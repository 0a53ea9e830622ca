"""Why could a node not take a job, and what does that say to who asked?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why one node was passed over: the first that applies, lasting ones first."""

    TENANT = "tenant"
    SERVICE_MISSING = "service_missing"
    LANGUAGE = "language"
    OUTSIDE_POOLS = "outside_pools"
    NOT_READY = "not_ready"
    MODEL_UNAVAILABLE = "model_unavailable"
    ALREADY_TRIED = "already_tried"
    OVERLOADED = "overloaded"
    FULL = "full"


LASTING = frozenset(
    {Reason.TENANT, Reason.SERVICE_MISSING, Reason.LANGUAGE, Reason.OUTSIDE_POOLS, Reason.ALREADY_TRIED}
)
"""Reasons that waiting does not mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No node can take the job now: how many nodes were passed over, by reason."""

    counts: dict[Reason, int]

    @property
    def is_worth_waiting(self) -> bool:
        """Whether some node could take the job once it is free, ready or well again."""
        return any(reason not in LASTING for reason in self.counts)

    def describe(self) -> str:
        """One line for people."""
        if not self.counts:
            return "no node is connected"
        parts = ", ".join(f"{count} {_IN_WORDS[reason]}" for reason, count in sorted(self.counts.items()))
        return f"no node can take it now: {parts}"


_IN_WORDS = {
    Reason.TENANT: "for other tenants only",
    Reason.SERVICE_MISSING: "without a service it needs",
    Reason.LANGUAGE: "not for these languages",
    Reason.OUTSIDE_POOLS: "outside the pools that it may use",
    Reason.NOT_READY: "not ready",
    Reason.MODEL_UNAVAILABLE: "without the model for now",
    Reason.ALREADY_TRIED: "that failed at it already",
    Reason.OVERLOADED: "overloaded",
    Reason.FULL: "full",
}
