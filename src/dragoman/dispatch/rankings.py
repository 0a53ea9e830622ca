"""Which nodes are worth trying for a job, with what is known of its earlier attempts and of its session?"""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import Final, NamedTuple

from dragoman.core.capability import Need
from dragoman.core.explain import Explanation, explain
from dragoman.core.ids import JobId, NodeId, SessionId
from dragoman.core.job import JobRequest
from dragoman.core.refusal import Refusal
from dragoman.core.selection import Affinity, Ranking, SelectionPolicy, rank_nodes
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.live_jobs import LiveJob
from dragoman.telemetry.metrics import Metrics

_DECISIONS_MAX: Final = 1024
"""Decisions remembered, to be explained."""


class Decision(NamedTuple):
    """What was decided about a job, and when."""

    made_ms: int
    found: Ranking | Refusal


class Rankings:
    """Rankings for the jobs of this instance."""

    def __init__(
        self,
        view: FleetView,
        waiting: WaitingRoom,
        policy: SelectionPolicy,
        rng: Random,
        metrics: Metrics,
        *,
        spread_ms: int,
    ) -> None:
        self._metrics = metrics
        self._has_affinity = view.pools.policy.has_affinity
        self._waiting = waiting
        self._view = view
        self._policy = policy
        self._rng = rng
        self._spread_ms = spread_ms
        self._decisions: OrderedDict[JobId, Decision] = OrderedDict()
        self._last_nodes: dict[SessionId, tuple[int, NodeId]] = {}

    def first(self, request: JobRequest, now_ms: int) -> Ranking | Refusal:
        """For the first attempt."""
        ranking = rank_nodes(
            request.need,
            self._view,
            self._policy,
            self._rng,
            now_ms=now_ms,
            spread_from=self._spread_from(request.session_id, now_ms) if self._spread_ms else None,
            doubts_full=self._doubts_full(request.need),
            affinity=self._affinity(request) if self._has_affinity else None,
        )
        return self._counted(request, ranking, now_ms)

    def next(self, job: LiveJob, now_ms: int) -> Ranking | Refusal:
        """For another attempt: not the nodes that failed at it, unless there are no others."""
        need = job.request.need
        ranking = rank_nodes(
            need,
            self._view,
            self._policy,
            self._rng,
            now_ms=now_ms,
            tried=job.tried,
            doubts_full=self._doubts_full(need),
            affinity=self._affinity(job.request) if self._has_affinity else None,
        )
        if isinstance(ranking, Ranking) or ranking.is_worth_waiting:
            return self._counted(job.request, ranking, now_ms)
        # Every node that could do it has failed once: better one of them again than none.
        job.tried = ()
        again = rank_nodes(need, self._view, self._policy, self._rng, now_ms=now_ms)
        return self._counted(job.request, again, now_ms)

    def decision(self, job_id: JobId) -> Decision | None:
        """What was decided last about a job, while that is remembered."""
        return self._decisions.get(job_id)

    def simulate(self, need: Need, routing_key: str | None, seed: int, now_ms: int) -> Explanation:
        """Where a job would go now, and why; nothing is reserved, and no real choice is changed by it."""
        affinity = Affinity(routing_key) if self._has_affinity and routing_key is not None else None
        rng = Random(seed)  # noqa: S311  # for a choice, not a secret
        return explain(need, self._view, self._policy, rng, now_ms=now_ms, affinity=affinity)

    def served(self, session_id: SessionId, node_id: NodeId, now_ms: int) -> None:
        """A node was given a job of a session: it is the one to spread from, or the one to keep to."""
        if self._spread_ms or self._has_affinity:
            self._last_nodes[session_id] = (now_ms, node_id)

    def forget_session(self, session_id: SessionId) -> None:
        """The session is over."""
        self._last_nodes.pop(session_id, None)

    def _counted(self, request: JobRequest, ranking: Ranking | Refusal, now_ms: int) -> Ranking | Refusal:
        self._decisions[request.job_id] = Decision(now_ms, ranking)
        if len(self._decisions) > _DECISIONS_MAX:
            self._decisions.popitem(last=False)
        if isinstance(ranking, Ranking):
            self._metrics.pools_selected[ranking.pool] += 1
            if ranking.fallback is not None:
                self._metrics.pool_fallbacks[ranking.fallback] += 1
        return ranking

    def _affinity(self, request: JobRequest) -> Affinity:
        """What a job is to keep to: the pool of its tenant, or of its session without one; its session's last node."""
        last = self._last_nodes.get(request.session_id)
        node_id = last[1] if last is not None and not self._spread_ms else None
        return Affinity(request.tenant_id or request.session_id, node_id)

    def _doubts_full(self, need: Need) -> bool:
        """Whether full nodes are worth a try. Not while others wait for the same: a guess would pass them by."""
        return self._policy.doubts_full and not self._waiting.length(need)

    def _spread_from(self, session_id: SessionId, now_ms: int) -> NodeId | None:
        last = self._last_nodes.get(session_id)
        return last[1] if last is not None and now_ms - last[0] < self._spread_ms else None
