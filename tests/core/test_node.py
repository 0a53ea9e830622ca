"""Which jobs may a node get, and does its status follow from what was seen of it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.capability import Languages
from dragoman.core.ids import TenantId
from dragoman.core.node import (
    Health,
    HealthPolicy,
    Node,
    NodeStatus,
    after_heartbeat,
    after_job,
    after_time,
    drained,
    gone,
    newly_registered,
)
from dragoman.core.refusal import Reason
from tests.core.fleet import a_node, examples, languages, services
from tests.support.builders import a_need

REGISTERING, READY, DEGRADED, DRAINING, OFFLINE = NodeStatus

# --- eligibility


def _refusal(node: Node, *, is_named: bool = False, tenant: str | None = None) -> Reason | None:
    return node.refuses(a_need(src="en", tgt="pt", tenant=tenant), is_named=is_named)


def test_a_public_node_that_can_do_everything_refuses_nobody() -> None:
    assert _refusal(a_node()) is None
    assert _refusal(a_node(), tenant="acme") is None
    assert _refusal(a_node(tenant=TenantId("acme")), tenant="other") is None


@pytest.mark.parametrize("tenant", [None, "other", ""])
def test_a_node_of_one_tenant_serves_no_other_not_even_by_name(tenant: str | None) -> None:
    node = a_node(tenant=TenantId("acme"), accepts_public=False)
    assert _refusal(node, tenant="acme") is None
    assert _refusal(node, tenant=tenant) is Reason.TENANT
    assert _refusal(node, tenant=tenant, is_named=True) is Reason.TENANT


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_a_private_node_without_a_tenant_serves_who_names_it(tenant: str | None) -> None:
    node = a_node(accepts_public=False)
    assert _refusal(node, tenant=tenant) is Reason.TENANT
    assert _refusal(node, tenant=tenant, is_named=True) is None


def test_a_node_without_one_of_the_services_refuses_for_that() -> None:
    assert _refusal(a_node(services=services("asr", "nmt"))) is Reason.SERVICE_MISSING
    assert _refusal(a_node(services=services("asr", "nmt", "tts", "tone"))) is None


def test_a_node_without_the_language_refuses_for_that() -> None:
    assert _refusal(a_node(languages=Languages(asr=languages("fr")))) is Reason.LANGUAGE


def test_every_pair_of_a_conversation_must_be_served() -> None:
    both_ways = replace(a_need(), pairs=(*a_need(src="en", tgt="pt").pairs, *a_need(src="pt", tgt="en").pairs))
    hears_both = a_node(languages=Languages(asr=languages("en", "pt")))
    hears_one = a_node(languages=Languages(asr=languages("en")))
    assert hears_both.refuses(both_ways, is_named=False) is None
    assert hears_one.refuses(both_ways, is_named=False) is Reason.LANGUAGE


def test_the_first_reason_that_applies_is_told() -> None:
    node = a_node(accepts_public=False, services=services(), languages=Languages(asr=frozenset()))
    assert _refusal(node) is Reason.TENANT
    assert _refusal(node, is_named=True) is Reason.SERVICE_MISSING


# --- status, as a table

_POLICY = HealthPolicy(health_check_count=2)
_STARTED_MS = 1_000


def _in(status: NodeStatus) -> Health:
    health = replace(newly_registered(_STARTED_MS), status=status)
    return drained(health) if status is DRAINING else health


def _beat(*, is_good: bool, times: int = 1, policy: HealthPolicy = _POLICY) -> Callable[[Health], Health]:
    def apply(health: Health) -> Health:
        for _ in range(times):
            health = after_heartbeat(health, is_good=is_good, now_ms=health.heartbeat_ms + 1_000, policy=policy)
        return health

    return apply


def _jobs(*outcomes: bool) -> Callable[[Health], Health]:
    def apply(health: Health) -> Health:
        for is_good in outcomes:
            health = after_job(health, is_good=is_good, policy=_POLICY)
        return health

    return apply


def _silence(for_ms: int) -> Callable[[Health], Health]:
    def apply(health: Health) -> Health:
        return after_time(health, now_ms=health.heartbeat_ms + for_ms, policy=_POLICY)

    return apply


_GOOD, _BAD = True, False


@pytest.mark.parametrize(
    ("status", "event", "becomes"),
    [
        (REGISTERING, _beat(is_good=True), REGISTERING),
        (REGISTERING, _beat(is_good=True, times=2), READY),
        (REGISTERING, _beat(is_good=False, times=9), REGISTERING),
        (REGISTERING, _jobs(_BAD, _BAD, _BAD), REGISTERING),
        (REGISTERING, _silence(44_999), REGISTERING),
        (REGISTERING, _silence(45_000), OFFLINE),
        (READY, _beat(is_good=True, times=9), READY),
        (READY, _beat(is_good=False, times=2), READY),
        (READY, _beat(is_good=False, times=3), DEGRADED),
        (READY, _jobs(_BAD, _BAD), READY),
        (READY, _jobs(_BAD, _BAD, _BAD), DEGRADED),
        (READY, _jobs(_BAD, _GOOD, _BAD, _GOOD, _BAD), DEGRADED),
        (READY, _jobs(_BAD, _GOOD, _GOOD, _BAD, _GOOD, _BAD), READY),
        (READY, _jobs(_GOOD, _GOOD, _GOOD, _BAD, _BAD, _BAD), DEGRADED),
        (READY, _silence(44_999), READY),
        (READY, _silence(45_000), OFFLINE),
        (READY, drained, DRAINING),
        (READY, gone, OFFLINE),
        (DEGRADED, _beat(is_good=True), READY),
        (DEGRADED, _beat(is_good=False), DEGRADED),
        (DEGRADED, _jobs(_GOOD, _GOOD, _GOOD), DEGRADED),
        (DEGRADED, _silence(45_000), OFFLINE),
        (DEGRADED, gone, OFFLINE),
        (DRAINING, _beat(is_good=True, times=9), DRAINING),
        (DRAINING, _beat(is_good=False, times=9), DRAINING),
        (DRAINING, _jobs(_BAD, _BAD, _BAD), DRAINING),
        (DRAINING, _silence(45_000), OFFLINE),
        (DRAINING, gone, OFFLINE),
        (OFFLINE, _beat(is_good=True, times=2), READY),
        (OFFLINE, _beat(is_good=True), REGISTERING),
        (OFFLINE, _beat(is_good=False), REGISTERING),
        (OFFLINE, _jobs(_GOOD, _BAD), OFFLINE),
        (OFFLINE, _silence(10**9), OFFLINE),
        (OFFLINE, drained, DRAINING),
    ],
)
def test_a_status_and_what_happens_make_the_next(
    status: NodeStatus, event: Callable[[Health], Health], becomes: NodeStatus
) -> None:
    assert event(_in(status)).status is becomes


def test_only_good_heartbeats_in_a_row_make_a_new_node_ready() -> None:
    health = _beat(is_good=True)(newly_registered(0))
    health = _beat(is_good=False)(health)
    health = _beat(is_good=True)(health)
    assert health.status is REGISTERING
    assert _beat(is_good=True)(health).status is READY


def test_a_node_that_does_not_become_ready_in_time_is_degraded() -> None:
    health = newly_registered(0)
    for now_ms in range(10_000, 60_000, 10_000):
        health = after_heartbeat(health, is_good=False, now_ms=now_ms, policy=_POLICY)
        health = after_time(health, now_ms=now_ms, policy=_POLICY)
    assert health.status is REGISTERING
    assert after_time(health, now_ms=60_000, policy=_POLICY).status is DEGRADED


def test_a_node_that_comes_back_has_the_whole_time_to_warm_up_again() -> None:
    health = after_heartbeat(gone(newly_registered(0)), is_good=False, now_ms=500_000, policy=_POLICY)
    health = after_heartbeat(health, is_good=False, now_ms=540_000, policy=_POLICY)
    assert after_time(health, now_ms=559_999, policy=_POLICY).status is REGISTERING
    assert after_time(health, now_ms=560_000, policy=_POLICY).status is DEGRADED


def test_old_failures_are_forgiven_when_a_node_is_well_again() -> None:
    health = _beat(is_good=True)(_jobs(_BAD, _BAD, _BAD)(_in(READY)))
    assert _jobs(_BAD, _BAD)(health).status is READY


def test_a_draining_node_that_was_away_comes_back_draining() -> None:
    for away in (gone, _silence(45_000)):
        health = away(drained(_in(READY)))
        assert health.status is OFFLINE
        assert _beat(is_good=True, times=5)(health).status is DRAINING


# --- status, as a property: a model that remembers everything

_Event = tuple[str, int]
_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["good beat"] * 4 + ["bad beat", "bad beat", "good job", "bad job", "bad job", "time", "time"])
        | st.sampled_from(["drain", "gone", "register"]),
        st.sampled_from([0, 1, 5, 10, 30, 60]),
    ),
    max_size=40,
)
_POLICIES = st.builds(
    HealthPolicy,
    heartbeat_timeout_ms=st.sampled_from([20, 50]),
    warmup_timeout_ms=st.sampled_from([15, 40, 80]),
    health_check_count=st.integers(1, 3),
    window_size=st.integers(3, 6),
    failure_count=st.integers(1, 3),
    consecutive_failure_count=st.integers(1, 4),
)


class _Model:
    """The status machine of the documentation, by the whole history instead of by a summary."""

    def __init__(self, policy: HealthPolicy) -> None:
        self.policy = policy
        self.register(0)

    def register(self, now_ms: int) -> None:
        self.status = REGISTERING
        self.is_draining = False
        self.since_ms = self.heard_ms = now_ms
        self.beats: list[bool] = []
        self.outcomes: list[bool] = []

    def beat(self, is_good: bool, now_ms: int) -> None:
        self.heard_ms = now_ms
        self.beats.append(is_good)
        if self.status is READY:
            self.happened(is_good)
        elif self.status is OFFLINE and self.is_draining:
            self.status = DRAINING
        elif (self.status in (REGISTERING, OFFLINE) and self.has_proved_itself()) or (
            self.status is DEGRADED and is_good
        ):
            self.status, self.outcomes = READY, []
        elif self.status is OFFLINE:
            self.status, self.since_ms = REGISTERING, now_ms

    def has_proved_itself(self) -> bool:
        count = self.policy.health_check_count
        return len(self.beats) >= count and all(self.beats[-count:])

    def happened(self, is_good: bool) -> None:
        if self.status is not READY:
            return
        self.outcomes.append(is_good)
        recent = self.outcomes[-self.policy.window_size :]
        row = self.outcomes[-self.policy.consecutive_failure_count :]
        in_a_row = len(row) == self.policy.consecutive_failure_count and not any(row)
        if recent.count(False) >= self.policy.failure_count or in_a_row:
            self.status = DEGRADED

    def time(self, now_ms: int) -> None:
        if self.status is OFFLINE:
            return
        if now_ms - self.heard_ms >= self.policy.heartbeat_timeout_ms:
            self.away()
        elif self.status is REGISTERING and now_ms - self.since_ms >= self.policy.warmup_timeout_ms:
            self.status = DEGRADED

    def away(self) -> None:
        self.status, self.beats = OFFLINE, []


def _step(health: Health, model: _Model, kind: str, now_ms: int) -> Health:
    policy = model.policy
    match kind:
        case "good beat" | "bad beat":
            model.beat(kind == "good beat", now_ms)
            return after_heartbeat(health, is_good=kind == "good beat", now_ms=now_ms, policy=policy)
        case "good job" | "bad job":
            model.happened(kind == "good job")
            return after_job(health, is_good=kind == "good job", policy=policy)
        case "time":
            model.time(now_ms)
            return after_time(health, now_ms=now_ms, policy=policy)
        case "drain":
            model.status, model.is_draining = DRAINING, True
            return drained(health)
        case "gone":
            model.away()
            return gone(health)
        case _:
            model.register(now_ms)
            return newly_registered(now_ms)


@examples(300)
@given(_POLICIES, _EVENTS)
def test_the_status_is_what_the_whole_history_says(policy: HealthPolicy, events: list[_Event]) -> None:
    model, health, now_ms = _Model(policy), newly_registered(0), 0
    for kind, passed_ms in events:
        now_ms += passed_ms
        health = _step(health, model, kind, now_ms)
        assert health.status is model.status


@examples(200)
@given(_POLICIES, _EVENTS)
def test_a_node_becomes_ready_by_a_good_heartbeat_and_by_nothing_else(
    policy: HealthPolicy, events: list[_Event]
) -> None:
    model, health, now_ms = _Model(policy), newly_registered(0), 0
    for kind, passed_ms in events:
        before, now_ms = health, now_ms + passed_ms
        health = _step(health, model, kind, now_ms)
        if health.status is READY and before.status is not READY:
            assert kind == "good beat"
            assert not before.is_draining


@examples(200)
@given(_POLICIES, _EVENTS)
def test_a_node_that_drains_takes_no_jobs_until_it_registers_anew(policy: HealthPolicy, events: list[_Event]) -> None:
    model, health, now_ms = _Model(policy), drained(newly_registered(0)), 0
    for kind, passed_ms in events:
        if kind == "register":
            return
        now_ms += passed_ms
        health = _step(health, model, kind, now_ms)
        assert health.status in (DRAINING, OFFLINE)


@examples(100)
@given(_POLICIES, _EVENTS)
def test_what_is_remembered_of_a_node_is_bounded(policy: HealthPolicy, events: list[_Event]) -> None:
    model, health, now_ms = _Model(policy), newly_registered(0), 0
    for kind, passed_ms in events:
        now_ms += passed_ms
        health = _step(health, model, kind, now_ms)
        assert len(health.outcomes) <= policy.window_size
