"""Can a job only go where the table lets it?"""

from __future__ import annotations

import pytest

from dragoman.core.lifecycle import AT_A_NODE, ENDED, MOVES, SOURCES, JobState

_FORWARD = [JobState.CREATED, JobState.RESERVED, JobState.DISPATCHED, JobState.ACCEPTED, JobState.RUNNING]
_UNDER_WAY = frozenset(JobState) - ENDED


def _reachable(start: JobState, *, without: frozenset[JobState] = frozenset()) -> set[JobState]:
    """Every state that some moves lead to from here, none of which enters a state in `without`."""
    seen: set[JobState] = set()
    border = [start]
    while border:
        found = MOVES[border.pop()] - without - seen
        seen |= found
        border += found
    return seen


def test_the_table_has_a_row_for_each_state_and_leads_nowhere_else() -> None:
    assert set(MOVES) == set(JobState)
    assert all(targets <= set(JobState) for targets in MOVES.values())


@pytest.mark.parametrize("state", sorted(ENDED))
def test_nothing_leaves_a_state_that_has_ended(state: JobState) -> None:
    assert MOVES[state] == frozenset()


def test_only_ended_states_have_no_moves() -> None:
    assert {state for state, targets in MOVES.items() if not targets} == ENDED


@pytest.mark.parametrize("state", sorted(JobState))
def test_no_state_moves_to_itself(state: JobState) -> None:
    assert state not in MOVES[state]


def test_every_state_can_be_reached_from_created() -> None:
    assert _reachable(JobState.CREATED) == set(JobState)


@pytest.mark.parametrize("state", sorted(_UNDER_WAY))
@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED])
def test_a_job_under_way_can_always_be_given_up(state: JobState, end: JobState) -> None:
    assert end in MOVES[state]


def test_only_a_job_with_a_slot_at_a_node_can_finish() -> None:
    assert SOURCES[JobState.FINISHED] == AT_A_NODE | {JobState.RESERVED}


@pytest.mark.parametrize("state", sorted(_UNDER_WAY))
def test_a_job_comes_back_to_the_same_state_only_through_created(state: JobState) -> None:
    assert state not in _reachable(state, without=frozenset({JobState.CREATED}))


def test_within_an_attempt_a_job_only_moves_forward() -> None:
    for place, state in enumerate(_FORWARD):
        assert MOVES[state] & set(_FORWARD) <= {*_FORWARD[place + 1 :], JobState.CREATED}


def test_a_job_gets_to_a_node_only_by_a_reservation() -> None:
    assert SOURCES[JobState.RESERVED] == {JobState.CREATED}
    assert SOURCES[JobState.DISPATCHED] == {JobState.RESERVED}


def test_sources_are_the_moves_seen_from_the_other_end() -> None:
    assert {(source, to) for to, sources in SOURCES.items() for source in sources} == {
        (source, to) for source, targets in MOVES.items() for to in targets
    }
