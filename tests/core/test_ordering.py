"""Do results go out in order, soon enough, and each exactly once?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.ordering import AHEAD_MAX, Missing, OrderedResults
from tests.core.fleet import examples

_GAP_MS = 100


def _order(*begun: int) -> OrderedResults[str]:
    order: OrderedResults[str] = OrderedResults(_GAP_MS)
    for index in begun:
        order.begin(index)
    return order


# --- one promise at a time


def test_results_that_end_in_order_go_out_at_once() -> None:
    order = _order(0, 1, 2)
    assert [order.end(index, str(index), index) for index in range(3)] == [["0"], ["1"], ["2"]]
    assert order.due_ms() is None


def test_a_result_waits_for_an_earlier_one_and_follows_it() -> None:
    order = _order(0, 1)
    assert order.end(1, "1", 0) == []
    assert order.end(0, "0", 50) == ["0", "1"]


def test_a_result_that_is_told_again_while_it_waits_goes_out_once() -> None:
    order = _order(0, 1)
    assert order.end(1, "1", 0) == []
    assert order.end(1, "1", 10) == []
    assert order.end(0, "0", 50) == ["0", "1"]


def test_a_result_waits_no_longer_than_the_gap_and_says_when() -> None:
    order = _order(0, 1)
    assert order.end(1, "1", 30) == []
    assert order.due_ms() == 130
    assert order.release(129) == []
    assert order.release(130) == ["1"]
    assert order.due_ms() is None


def test_an_earlier_result_that_comes_late_is_still_delivered() -> None:
    order = _order(0, 1)
    order.end(1, "1", 0)
    order.release(100)
    assert order.end(0, "0", 5_000) == ["0"]


def test_what_was_passed_over_does_not_hold_up_the_next() -> None:
    order = _order(0, 1, 2)
    order.end(1, "1", 0)
    order.release(100)
    assert order.end(2, "2", 100) == ["2"]


def test_an_index_that_the_client_skipped_is_missing_once_and_before_the_next() -> None:
    order = _order(0, 3)
    assert order.end(0, "0", 0) == ["0"]
    assert order.end(3, "3", 0) == []
    assert order.release(100) == [Missing(1), Missing(2), "3"]
    assert order.release(10_000) == []


def test_an_utterance_under_way_is_not_missing() -> None:
    order = _order(1, 2)
    order.end(2, "2", 0)
    assert order.release(100) == [Missing(0), "2"]
    assert order.end(1, "1", 100) == ["1"]


def test_an_error_holds_nothing_up() -> None:
    order = _order(0, 1)
    assert order.end(0, None, 0) == []
    assert order.end(1, "1", 0) == ["1"]


def test_an_error_lets_go_what_waited_for_it() -> None:
    order = _order(0, 1)
    order.end(1, "1", 0)
    assert order.end(0, None, 1) == ["1"]


def test_an_error_does_not_overtake_in_the_order_of_results() -> None:
    order = _order(0, 1, 2)
    assert order.end(1, None, 0) == []
    assert order.end(2, "2", 0) == []
    assert order.end(0, "0", 0) == ["0", "2"]


def test_skipped_indexes_before_an_error_are_missing_after_the_gap() -> None:
    order = _order(1)
    assert order.end(1, None, 0) == []
    assert order.release(100) == [Missing(0)]


def test_the_end_of_one_lets_go_what_is_overdue() -> None:
    order = _order(0, 1, 3)
    order.end(1, "1", 0)
    assert order.end(3, "3", 150) == ["1"]


def test_several_requests_with_one_index_all_come_out() -> None:
    order = _order(0, 1, 1)
    assert order.end(1, "first", 0) == []
    assert order.end(1, "second", 1) == []
    assert order.end(0, "0", 2) == ["0", "first", "second"]


def test_an_index_used_again_after_its_result_went_out_is_answered_at_once() -> None:
    order = _order(0)
    order.end(0, "first", 0)
    order.begin(0)
    assert order.is_open(0)
    assert order.end(0, "second", 1) == ["second"]


def test_a_late_second_request_of_an_index_does_not_disturb_those_who_wait() -> None:
    order = _order(0, 1, 2)
    order.end(0, "first", 0)
    order.end(2, "2", 0)
    order.begin(0)
    assert order.end(0, "second", 1) == ["second"]
    assert order.end(1, "1", 2) == ["1", "2"]


def test_an_index_too_far_ahead_is_told_from_one_that_is_not() -> None:
    order = _order(0)
    order.end(0, "0", 0)
    assert not order.is_too_far(AHEAD_MAX)
    assert order.is_too_far(AHEAD_MAX + 1)
    assert order.is_too_far(2**63)


def test_what_is_under_way_is_counted_until_it_ends() -> None:
    order = _order(0, 1)
    assert order.open_count == 2
    order.end(1, "1", 0)
    assert order.open_count == 1
    assert not order.is_open(1)
    assert order.is_open(0)


# --- in any order


@dataclass
class _Story:
    """What happened to a session, and what came out: kept whole, to be looked at afterwards."""

    order: OrderedResults[str] = field(default_factory=lambda: OrderedResults(_GAP_MS))
    now_ms: int = 0
    begun: Counter[int] = field(default_factory=Counter)
    ended_ms: dict[str, int] = field(default_factory=dict)
    first_end_ms: dict[int, int] = field(default_factory=dict)
    out: list[tuple[str | Missing, int]] = field(default_factory=list)

    def tell(self, out: list[str | Missing]) -> None:
        self.out += [(item, self.now_ms) for item in out]

    def begin(self, index: int) -> None:
        self.order.begin(index)
        self.begun[index] += 1

    def end(self, index: int, *, is_error: bool) -> None:
        result = f"{index}#{len(self.ended_ms)}"
        self.first_end_ms.setdefault(index, self.now_ms)
        if not is_error:
            self.ended_ms[result] = self.now_ms
        self.tell(self.order.end(index, None if is_error else result, self.now_ms))

    def let_pass(self, passed_ms: int) -> None:
        """Time goes by, and whoever keeps the order looks at it exactly when it asked for that."""
        until_ms = self.now_ms + passed_ms
        while (due_ms := self.order.due_ms()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.tell(self.order.release(self.now_ms))
        self.now_ms = until_ms

    def results(self) -> list[tuple[int, int]]:
        """The index of each result that went out, and when."""
        return [(int(item.split("#")[0]), at_ms) for item, at_ms in self.out if isinstance(item, str)]

    def missing(self) -> list[int]:
        return [item.index for item, _ in self.out if isinstance(item, Missing)]


_Plan = list[tuple[int, int, bool]]
_INDEXES = st.integers(0, 7)
_WAITS_MS = st.sampled_from([0, 0, 1, 30, 99, 100, 101, 250])
_ENDS = st.lists(st.tuples(_INDEXES, _WAITS_MS, st.booleans()), unique_by=lambda end: end[0], max_size=8)


def _run(plan: _Plan, unended: frozenset[int] = frozenset()) -> _Story:
    story = _Story()
    for index in {*unended, *(index for index, _, _ in plan)}:
        story.begin(index)
    for index, wait_ms, is_error in plan:
        story.let_pass(wait_ms)
        if index not in unended:
            story.end(index, is_error=is_error)
    return story


@examples(150)
@given(_ENDS, st.frozensets(_INDEXES, max_size=3))
def test_every_result_comes_out_exactly_once(plan: _Plan, unended: frozenset[int]) -> None:
    story = _run(plan, unended)
    story.let_pass(_GAP_MS)
    assert sorted(item for item, _ in story.out if isinstance(item, str)) == sorted(story.ended_ms)
    assert story.order.due_ms() is None


@examples(150)
@given(_ENDS, st.frozensets(_INDEXES, max_size=3))
def test_no_result_is_held_longer_than_the_gap(plan: _Plan, unended: frozenset[int]) -> None:
    story = _run(plan, unended)
    story.let_pass(10 * _GAP_MS)
    for item, at_ms in story.out:
        if isinstance(item, str):
            assert at_ms - story.ended_ms[item] <= _GAP_MS


@examples(150)
@given(_ENDS, st.frozensets(_INDEXES, max_size=3))
def test_results_ascend_unless_one_has_waited_for_the_gap(plan: _Plan, unended: frozenset[int]) -> None:
    story = _run(plan, unended)
    story.let_pass(_GAP_MS)
    highest = -1
    for index, at_ms in story.results():
        if index < highest:
            passed_over = [ended_ms for other, ended_ms in story.first_end_ms.items() if other > index]
            assert min(passed_over) + _GAP_MS <= at_ms
        highest = max(highest, index)


@examples(150)
@given(_ENDS, st.frozensets(_INDEXES, max_size=3))
def test_a_result_goes_ahead_of_an_earlier_utterance_only_when_that_was_waited_for_long_enough(
    plan: _Plan, unended: frozenset[int]
) -> None:
    story = _run(plan, unended)
    story.let_pass(_GAP_MS)
    for index, at_ms in story.results():
        waited_for = [earlier for earlier in range(index) if story.first_end_ms.get(earlier, at_ms + 1) > at_ms]
        for earlier in waited_for:
            since_ms = min(ended_ms for other, ended_ms in story.first_end_ms.items() if other > earlier)
            assert since_ms + _GAP_MS <= at_ms


@examples(150)
@given(st.permutations(range(7)), st.lists(st.booleans(), min_size=7, max_size=7))
def test_when_all_before_it_have_ended_a_result_goes_out_at_once(order: list[int], errors: list[bool]) -> None:
    story = _Story()
    for index in order:
        story.begin(index)
    for index in order:
        story.now_ms += 1
        story.end(index, is_error=errors[index])
        ended = 0
        while ended in story.first_end_ms:
            ended += 1
        assert [index for index, _ in story.results()] == [index for index in range(ended) if not errors[index]]


@examples(150)
@given(_ENDS, st.frozensets(_INDEXES, max_size=3))
def test_each_skipped_index_is_missing_once_and_nothing_else_is(plan: _Plan, unended: frozenset[int]) -> None:
    story = _run(plan, unended)
    story.let_pass(_GAP_MS)
    last = max(story.first_end_ms, default=-1)
    assert sorted(story.missing()) == [index for index in range(last) if not story.begun[index]]


@examples(150)
@given(_ENDS)
def test_with_nothing_under_way_results_and_missing_indexes_ascend_together(plan: _Plan) -> None:
    story = _Story()
    for index, _, _ in plan:
        story.begin(index)
    for index, _, is_error in plan:
        story.end(index, is_error=is_error)
    story.let_pass(_GAP_MS)
    told = [item.index if isinstance(item, Missing) else int(item.split("#")[0]) for item, _ in story.out]
    assert told == sorted(told)


@examples(150)
@given(st.lists(st.tuples(_INDEXES, _WAITS_MS, st.sampled_from(["begin", "result", "error"])), max_size=30))
def test_whatever_a_client_does_with_its_indexes_each_request_has_its_result(
    steps: list[tuple[int, int, str]],
) -> None:
    story = _Story()
    under_way: Counter[int] = Counter()
    for index, wait_ms, kind in steps:
        story.let_pass(wait_ms)
        if kind == "begin":
            story.begin(index)
            under_way[index] += 1
        elif under_way[index]:
            under_way[index] -= 1
            story.end(index, is_error=kind == "error")
    story.let_pass(_GAP_MS)
    assert sorted(item for item, _ in story.out if isinstance(item, str)) == sorted(story.ended_ms)
    assert max(Counter(story.missing()).values(), default=1) == 1
    for item, at_ms in story.out:
        if isinstance(item, str):
            assert at_ms - story.ended_ms[item] <= _GAP_MS
    assert story.order.due_ms() is None
