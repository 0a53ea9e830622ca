"""Is the job served next the one that should be?"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dragoman.core.capability import Need
from dragoman.core.ids import JobId, NodeId
from dragoman.core.node import NodeStatus
from dragoman.core.profiles import NodeEntry
from dragoman.core.view import FleetView
from dragoman.core.waiting import WaitingRoom
from tests.core.fleet import a_health, a_node, enter, examples, services
from tests.support.builders import a_need


def _entry(**fields: object) -> NodeEntry:
    return enter(FleetView(), a_node("n1", **fields))  # type: ignore[arg-type]


def _room(**jobs: tuple[int, int]) -> WaitingRoom:
    """Jobs with a priority and a deadline, in the order in which they came."""
    room = WaitingRoom(100)
    for name, (priority, deadline_ms) in jobs.items():
        room.put(JobId(name), a_need(), priority=priority, deadline_ms=deadline_ms)
    return room


def _nobody(job_id: JobId) -> bool:
    return False


def _served(room: WaitingRoom, entry: NodeEntry | None = None) -> list[str]:
    """Every job that a node would take, one after the other."""
    served: list[str] = []
    while (job_id := room.next_for(entry or _entry(), 0, _nobody)) is not None:
        room.remove(job_id)
        served.append(job_id)
    return served


def test_the_most_urgent_come_first() -> None:
    assert _served(_room(calm=(0, 5), urgent=(9, 50), usual=(5, 1))) == ["urgent", "usual", "calm"]


def test_within_a_priority_the_earliest_deadline_comes_first() -> None:
    assert _served(_room(late=(5, 300), soon=(5, 100), between=(5, 200))) == ["soon", "between", "late"]


def test_within_a_deadline_the_first_come_is_the_first_served() -> None:
    names = [f"job-{number}" for number in (3, 1, 2, 5, 4)]
    assert _served(_room(**dict.fromkeys(names, (5, 100)))) == names


def test_the_order_holds_across_needs() -> None:
    room = WaitingRoom(10)
    for place, (need, priority) in enumerate([(a_need(), 1), (a_need(src="zh"), 9), (a_need(), 5)]):
        room.put(JobId(str(place)), need, priority=priority, deadline_ms=100)
    assert _served(room) == ["1", "2", "0"]


def test_a_node_is_given_only_what_it_can_take() -> None:
    room = _room(speech=(9, 1))
    room.put(JobId("text"), a_need(services=("nmt",)), priority=0, deadline_ms=100)
    assert _served(room, _entry(services=services("nmt"))) == ["text"]
    assert JobId("speech") in room


def test_a_node_that_is_full_or_not_ready_is_given_nothing() -> None:
    view = FleetView()
    room = _room(job=(5, 100))
    entry = enter(view, a_node("n1"), used=1)
    assert room.next_for(entry, 0, _nobody) is None
    view.give_back(NodeId("n1"))
    assert room.next_for(entry, 0, _nobody) == "job"
    view.set_health(entry, a_health(NodeStatus.DRAINING))
    assert room.next_for(entry, 0, _nobody) is None


def test_a_job_stays_until_it_is_removed() -> None:
    room = _room(job=(5, 100))
    assert room.next_for(_entry(), 0, _nobody) == room.next_for(_entry(), 0, _nobody) == "job"
    room.remove(JobId("job"))
    assert room.next_for(_entry(), 0, _nobody) is None


def test_a_job_that_waits_already_keeps_its_place() -> None:
    room = _room(first=(5, 100), second=(5, 100))
    room.put(JobId("second"), a_need(), priority=9, deadline_ms=1)
    assert len(room) == 2
    assert _served(room) == ["first", "second"]


def test_a_job_that_comes_again_after_it_left_is_served_once_and_by_its_new_place() -> None:
    room = _room(first=(5, 100), second=(5, 100))
    room.remove(JobId("first"))
    room.put(JobId("first"), a_need(), priority=5, deadline_ms=100)
    assert _served(room) == ["second", "first"]


def test_removing_a_job_that_does_not_wait_changes_nothing() -> None:
    room = _room(job=(5, 100))
    room.remove(JobId("stranger"))
    assert _served(room) == ["job"]


def test_a_barred_job_holds_up_those_behind_it_with_the_same_need_only() -> None:
    room = _room(barred=(9, 1), behind=(5, 1))
    room.put(JobId("other"), a_need(src="zh"), priority=0, deadline_ms=100)
    assert room.next_for(_entry(), 0, lambda job_id: job_id == "barred") == "other"


def test_the_room_is_full_at_its_bound_and_not_when_one_has_left() -> None:
    room = WaitingRoom(2)
    for name in ("a", "b"):
        assert not room.is_full
        room.put(JobId(name), a_need(), priority=5, deadline_ms=1)
    assert room.is_full
    room.remove(JobId("b"))
    assert not room.is_full


def test_jobs_that_came_and_went_behind_another_are_not_kept() -> None:
    room = _room(first=(9, 1))
    for number in range(5_000):
        job_id = JobId(f"job-{number}")
        room.put(job_id, a_need(), priority=0, deadline_ms=number)
        room.remove(job_id)
    assert len(room) == 1
    assert room.length(a_need()) < 200
    assert _served(room) == ["first"]


# --- in any order, next to a model that is a plain list

_NEEDS = (a_need(), a_need(src="zh"), a_need(services=("nmt",)), a_need(services=("tone",)))
_names = st.sampled_from([JobId(f"j{number}") for number in range(8)])


@dataclass(frozen=True)
class _Waiter:
    job_id: JobId
    need: Need
    place: tuple[int, int, int]


class WaitingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom(5)
        self.waiters: list[_Waiter] = []
        self.came = 0
        self.entries = [_entry(), _entry(services=services("nmt")), _entry(slots=0)]

    @rule(
        job_id=_names,
        need=st.sampled_from(_NEEDS),
        priority=st.integers(0, 9),
        deadline_ms=st.integers(0, 3),
    )
    def put(self, job_id: JobId, need: Need, priority: int, deadline_ms: int) -> None:
        self.room.put(job_id, need, priority=priority, deadline_ms=deadline_ms)
        self.came += 1
        if all(waiter.job_id != job_id for waiter in self.waiters):
            self.waiters.append(_Waiter(job_id, need, (-priority, deadline_ms, self.came)))

    @rule(job_id=_names)
    def remove(self, job_id: JobId) -> None:
        self.room.remove(job_id)
        self.waiters = [waiter for waiter in self.waiters if waiter.job_id != job_id]

    @rule(which=st.integers(0, 2), barred=st.frozensets(_names, max_size=3), is_taken=st.booleans())
    def serve(self, which: int, barred: frozenset[JobId], is_taken: bool) -> None:
        entry = self.entries[which]
        job_id = self.room.next_for(entry, 0, lambda job_id: job_id in barred)
        heads = [
            min((waiter for waiter in self.waiters if waiter.need is need), key=lambda waiter: waiter.place)
            for need in {waiter.need for waiter in self.waiters}
        ]
        fit = [head for head in heads if entry.refuses(head.need, 0) is None and head.job_id not in barred]
        assert job_id == min(fit, key=lambda waiter: waiter.place).job_id if fit else job_id is None
        if job_id is not None and is_taken:
            self.remove(job_id)

    @invariant()
    def it_holds_exactly_those_who_wait(self) -> None:
        waiting = {waiter.job_id for waiter in self.waiters}
        assert len(self.room) == len(waiting)
        assert all((JobId(f"j{number}") in self.room) == (f"j{number}" in waiting) for number in range(8))
        assert self.room.is_full == (len(waiting) >= 5)

    @invariant()
    def it_counts_at_least_those_who_wait_for_a_need(self) -> None:
        for need in _NEEDS:
            waiting = sum(waiter.need is need for waiter in self.waiters)
            assert self.room.length(need) >= waiting
            assert waiting or not self.room.length(need)


TestWaitingMachine = WaitingMachine.TestCase
TestWaitingMachine.settings = examples(100)
