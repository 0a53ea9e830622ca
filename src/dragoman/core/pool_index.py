"""Which pools exist as nodes come, change and go, and through which of them does a need go?

The plan is kept step by step: a node costs its own pools, never the fleet. It is always what `plan_pools` says of the
nodes that are connected.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import accumulate
from random import Random
from typing import Final

from dragoman.core.capability import Need
from dragoman.core.hashing import Salt
from dragoman.core.pools import OUTSIDE, Pool, PoolPolicy, is_for, nodes_min, pools_max, pools_of
from dragoman.core.profiles import Profile, ProfileKey

_NEEDS_MAX: Final = 4096


class PoolGroup:
    """A pool that may exist, and who belongs to it."""

    __slots__ = ("count", "is_planned", "pool", "profiles", "salt")

    def __init__(self, pool: Pool, hash_seed: int) -> None:
        self.pool = pool
        self.profiles: dict[ProfileKey, Profile] = {}
        self.count = 0
        """How many of its nodes are connected."""
        self.is_planned = False
        """Whether it is one of the pools that exist."""
        self.salt = Salt(pool.name, hash_seed)


class Arm:
    """A pool as a need sees it: those of its nodes that can serve the need."""

    __slots__ = ("group", "name", "profiles")

    def __init__(self, name: str, profiles: tuple[Profile, ...], group: PoolGroup | None) -> None:
        self.name = name
        self.profiles = profiles
        self.group = group

    def free_slots(self) -> int:
        """Slots in it that can be given now."""
        return sum([profile.free_slots for profile in self.profiles])

    def free_nodes(self) -> int:
        """Nodes in it that have one."""
        return sum([profile.free.count for profile in self.profiles])


class Route:
    """Where a need may go: the pools that are for it, and what is left to it when these are full."""

    __slots__ = ("_left", "_sums", "arms", "homes", "is_open", "outside", "override")

    def __init__(self, arms: tuple[Arm, ...], outside: Arm, override: Arm | None, *, is_open: bool) -> None:
        self.arms = arms
        """Eligible pools, by name."""
        self.outside = outside
        """Everybody else who could serve it."""
        self.override = override
        """The pool that its tenant is to have."""
        self.is_open = is_open
        """Whether those outside may be given it."""
        self.homes = dict.fromkeys(outside.profiles, outside.name) if is_open else {}
        """The pool that a node of a kind is in as this need sees it; of several the first. Others must not have it."""
        self.homes |= {profile: arm.name for arm in reversed(arms) for profile in arm.profiles}
        self._sums: list[int] = []
        self._left = 0

    def weighted(self, rng: Random) -> Arm | None:
        """A pool by lot, likelier the more free slots it has. None: there is no pool.

        The slots are counted anew once in as many draws as there are pools, so that a draw costs the same with many.
        """
        arms = self.arms
        if len(arms) <= 1:
            return arms[0] if arms else None
        if not self._left:
            self._sums = list(accumulate([arm.free_slots() for arm in arms]))
            self._left = len(arms)
        self._left -= 1
        total = self._sums[-1]
        if not total:
            self._left = 0
            return arms[int(rng.random() * len(arms))]
        return arms[bisect_left(self._sums, rng.random() * total, hi=len(arms) - 1)]

    def hashed(self, key: str) -> Arm | None:
        """The pool that a routing key has (rendezvous hashing, Thaler and Ravishankar 1998).

        It changes only for keys whose pool is gone, or that a new pool takes over.
        """
        best: Arm | None = None
        most = -1
        for arm in self.arms:
            lot = arm.group.salt.mix(key) if arm.group is not None else 0
            if lot > most:
                best, most = arm, lot
        return best

    def recount(self) -> None:
        """The weights are known to be old: count them at the next draw."""
        self._left = 0


class PoolIndex:
    """The pools of a fleet."""

    def __init__(self, policy: PoolPolicy, serving: Callable[[Need], list[Profile]]) -> None:
        self.policy = policy
        self._serving = serving
        self.groups: dict[str, PoolGroup] = {}
        self._ranked: list[tuple[int, str]] = []
        """Pools with nodes enough, the largest first."""
        self._nodes_min = nodes_min(policy)
        self._pools_max = pools_max(policy)
        self._routes: dict[Need, Route] = {}
        self.replanned: set[str] = set()
        """Pools that came to be or ceased to be since somebody last looked; whoever looks takes the set."""

    def planned(self) -> Iterator[PoolGroup]:
        """The pools that exist, the largest first."""
        for _, name in self._ranked[: self._pools_max]:
            yield self.groups[name]

    def enter(self, profile: Profile) -> None:
        """There are nodes of a new kind."""
        profile.groups = tuple(self._group(pool) for pool in pools_of(profile.example, self.policy))
        for group in profile.groups:
            group.profiles[profile.key] = profile
        if self.policy.forbids:
            profile.permits = self._permits
        self._routes.clear()

    def leave(self, profile: Profile) -> None:
        """There are no nodes of a kind any more."""
        for group in profile.groups:
            del group.profiles[profile.key]
            if not group.profiles:
                del self.groups[group.pool.name]
        self._routes.clear()

    def count(self, profile: Profile, step: int) -> None:
        """So many more nodes of a kind are connected, or fewer."""
        for group in profile.groups:
            self._shift(group, step)

    def route(self, need: Need) -> Route:
        """Where a need may go."""
        route = self._routes.get(need)
        if route is None:
            if len(self._routes) >= _NEEDS_MAX:
                self._routes.clear()
            route = self._routes[need] = self._lay(need, self._serving(need))
        return route

    # --- how

    def _group(self, pool: Pool) -> PoolGroup:
        group = self.groups.get(pool.name)
        if group is None:
            group = self.groups[pool.name] = PoolGroup(pool, self.policy.hash_seed)
        return group

    def _shift(self, group: PoolGroup, step: int) -> None:
        """A pool is larger or smaller: its place among the others changes, and who is at the border with it."""
        name, ranked, border = group.pool.name, self._ranked, self._pools_max
        place = len(ranked)
        if group.count >= self._nodes_min:
            place = bisect_left(ranked, (-group.count, name))
            ranked.pop(place)
        group.count += step
        after = len(ranked)
        if group.count >= self._nodes_min:
            insort(ranked, (-group.count, name))
            after = bisect_left(ranked, (-group.count, name))
        was, now = group.is_planned, group.count >= self._nodes_min and after < border
        if was == now:
            return
        self._set_planned(group, is_planned=now)
        if now and len(ranked) > border:
            self._set_planned(self.groups[ranked[border][1]], is_planned=False)
        elif was and len(ranked) >= border:
            self._set_planned(self.groups[ranked[border - 1][1]], is_planned=True)

    def _set_planned(self, group: PoolGroup, *, is_planned: bool) -> None:
        if group.is_planned is not is_planned:
            group.is_planned = is_planned
            self.replanned.add(group.pool.name)
            self._routes.clear()

    def _permits(self, need: Need, profile: Profile) -> bool:
        return profile in self.route(need).homes

    def _lay(self, need: Need, serving: list[Profile]) -> Route:
        found: dict[str, list[Profile]] = {}
        outside: list[Profile] = []
        for profile in serving:
            is_in = False
            for group in profile.groups:
                if group.is_planned and is_for(group.pool, profile.example, need, self.policy):
                    found.setdefault(group.pool.name, []).append(profile)
                    is_in = True
            if not is_in:
                outside.append(profile)
        arms = tuple(Arm(name, tuple(profiles), self.groups[name]) for name, profiles in sorted(found.items()))
        policy = self.policy
        wanted = None if need.tenant is None else policy.overrides.get(need.tenant)
        is_open = policy.leaves_pools and not (policy.is_strict and not arms)
        if not arms and not policy.is_strict and not policy.leaves_pools:
            # No pool is for it: any pool will do.
            outside = [profile for profile in outside if any(group.is_planned for group in profile.groups)]
            is_open = True
        return Route(
            arms,
            Arm(OUTSIDE, tuple(outside), None),
            next((arm for arm in arms if arm.name == wanted), None),
            is_open=is_open,
        )
