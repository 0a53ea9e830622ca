"""How busy is a pool, how long do jobs wait for it, and how many slots would keep the waiting short?

A pool is a queue of jobs that come at random and are served by c slots: the queue M/M/c of Erlang ("Løsning af nogle
Problemer fra Sandsynlighedsregningen", 1917). Service times that vary less than that model says wait less, so what it
asks for is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf
from typing import Final

WINDOW_MS: Final = 60_000
SLOTS_MAX: Final = 1_000_000


def waits_at_all(slots: int, offered: float) -> float:
    """The share of jobs that wait (Erlang C), for an offered load in slots: jobs a second times seconds each takes."""
    if offered <= 0:
        return 0.0
    if offered >= slots:
        return 1.0
    blocked = 1.0
    for number in range(1, slots + 1):
        # Erlang B by its recursion, which no factorial can overflow.
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / slots * (1 - blocked))


def mean_wait_s(slots: int, offered: float, service_s: float) -> float:
    """How long jobs wait on average; endless when more is offered than the slots can do."""
    if offered <= 0:
        return 0.0
    return inf if offered >= slots else waits_at_all(slots, offered) * service_s / (slots - offered)


def waits_longer(slots: int, offered: float, service_s: float, target_s: float) -> float:
    """The share of jobs that wait longer than a target."""
    if offered >= slots:
        return 1.0 if offered > 0 else 0.0
    share = waits_at_all(slots, offered)
    return share * exp(-(slots - offered) * target_s / service_s) if share else 0.0


def slots_for(offered: float, service_s: float, target_s: float, share: float = 0.01) -> int:
    """The fewest slots at which no more than that share of the jobs waits longer than the target."""
    if offered <= 0 or service_s <= 0:
        return 0
    least, most = int(offered) + 1, int(offered) + 2
    while waits_longer(most, offered, service_s, target_s) > share and most < SLOTS_MAX:
        most *= 2
    while least < most:
        middle = (least + most) // 2
        if waits_longer(middle, offered, service_s, target_s) > share:
            least = middle + 1
        else:
            most = middle
    return least


@dataclass(slots=True)
class _Window:
    started_ms: int
    begun: int = 0
    waited_ms: int = 0
    served: int = 0
    served_ms: int = 0


class Meter:
    """What a pool was asked for lately: in this minute and the one before."""

    __slots__ = ("_before", "_now")

    def __init__(self, now_ms: int) -> None:
        self._now = _Window(now_ms)
        self._before: _Window | None = None

    def begin(self, now_ms: int, waited_ms: int) -> None:
        """A job was given to a node, after so long."""
        window = self._at(now_ms)
        window.begun += 1
        window.waited_ms += max(waited_ms, 0)

    def end(self, now_ms: int, served_ms: int) -> None:
        """A job was done, in so long."""
        window = self._at(now_ms)
        window.served += 1
        window.served_ms += max(served_ms, 0)

    def read(self, now_ms: int) -> Demand:
        """What was asked for."""
        window, before = self._at(now_ms), self._before
        windows = [window] if before is None else [window, before]
        begun, served = (sum(getattr(one, what) for one in windows) for what in ("begun", "served"))
        span_ms = max(now_ms - windows[-1].started_ms, 1000)
        return Demand(
            jobs_per_s=begun * 1000 / span_ms,
            service_s=sum(one.served_ms for one in windows) / served / 1000 if served else 0.0,
            wait_s=sum(one.waited_ms for one in windows) / begun / 1000 if begun else 0.0,
        )

    def _at(self, now_ms: int) -> _Window:
        age_ms = now_ms - self._now.started_ms
        if age_ms >= WINDOW_MS:
            self._before = self._now if age_ms < 2 * WINDOW_MS else None
            self._now = _Window(now_ms - age_ms % WINDOW_MS)
        return self._now


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a pool is asked for: how many jobs, how long each takes, and how long they waited for a slot."""

    jobs_per_s: float
    service_s: float
    wait_s: float

    @property
    def offered(self) -> float:
        """Slots that would always be busy with it (erlangs)."""
        return self.jobs_per_s * self.service_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How a pool's slots stand to what it is asked for."""

    pool: str
    slots: int
    busy_slots: int
    demand: Demand
    waits_longer: float
    """The share of jobs that should wait longer than the target, by the model."""
    slots_wanted: int
    """The fewest slots that hold that share under the one allowed."""


def plan_capacity(
    pool: str, *, slots: int, busy_slots: int, demand: Demand, target_s: float, share: float = 0.01
) -> Capacity:
    """Whether a pool has slots enough for its waiting to stay under a target."""
    service_s = demand.service_s
    return Capacity(
        pool=pool,
        slots=slots,
        busy_slots=busy_slots,
        demand=demand,
        waits_longer=waits_longer(slots, demand.offered, service_s, target_s) if service_s else 0.0,
        slots_wanted=slots_for(demand.offered, service_s, target_s, share),
    )
