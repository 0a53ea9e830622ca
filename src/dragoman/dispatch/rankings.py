"""Which nodes are worth trying for a job, with what is known of its earlier attempts and of its session?"""

from __future__ import annotations

from random import Random

from dragoman.core.capability import Need
from dragoman.core.ids import NodeId, SessionId
from dragoman.core.job import JobRequest
from dragoman.core.refusal import Refusal
from dragoman.core.selection import Ranking, SelectionPolicy, rank_nodes
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from dragoman.dispatch.live_jobs import LiveJob


class Rankings:
    """Rankings for the jobs of this instance."""

    def __init__(
        self, view: FleetView, waiting: WaitingRoom, policy: SelectionPolicy, rng: Random, *, spread_ms: int
    ) -> None:
        self._waiting = waiting
        self._view = view
        self._policy = policy
        self._rng = rng
        self._spread_ms = spread_ms
        self._last_nodes: dict[SessionId, tuple[int, NodeId]] = {}

    def first(self, request: JobRequest, now_ms: int) -> Ranking | Refusal:
        """For the first attempt."""
        return rank_nodes(
            request.need,
            self._view,
            self._policy,
            self._rng,
            now_ms=now_ms,
            spread_from=self._spread_from(request.session_id, now_ms) if self._spread_ms else None,
            doubts_full=self._doubts_full(request.need),
        )

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
        )
        if isinstance(ranking, Ranking) or ranking.is_worth_waiting:
            return ranking
        # Every node that could do it has failed once: better one of them again than none.
        job.tried = ()
        return rank_nodes(need, self._view, self._policy, self._rng, now_ms=now_ms)

    def served(self, session_id: SessionId, node_id: NodeId, now_ms: int) -> None:
        """A node was given a job of a session: where there are others, it is not the next one to get one."""
        if self._spread_ms:
            self._last_nodes[session_id] = (now_ms, node_id)

    def forget_session(self, session_id: SessionId) -> None:
        """The session is over."""
        self._last_nodes.pop(session_id, None)

    def _doubts_full(self, need: Need) -> bool:
        """Whether full nodes are worth a try. Not while others wait for the same: a guess would pass them by."""
        return self._policy.doubts_full and not self._waiting.length(need)

    def _spread_from(self, session_id: SessionId, now_ms: int) -> NodeId | None:
        last = self._last_nodes.get(session_id)
        return last[1] if last is not None and now_ms - last[0] < self._spread_ms else None
