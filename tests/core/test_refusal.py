"""Does a refusal say why, and whether waiting helps?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.refusal import Reason, Refusal
from tests.core.fleet import examples

_MENDED_BY_WAITING = {Reason.NOT_READY, Reason.MODEL_UNAVAILABLE, Reason.OVERLOADED, Reason.FULL}
_COUNTS = st.dictionaries(st.sampled_from(sorted(Reason)), st.integers(1, 99))


@examples(100)
@given(_COUNTS)
def test_waiting_is_worth_it_when_some_node_was_refused_for_what_passes(counts: dict[Reason, int]) -> None:
    assert Refusal(counts=counts).is_worth_waiting == (not _MENDED_BY_WAITING.isdisjoint(counts))


def test_without_nodes_there_is_nothing_to_wait_for() -> None:
    refusal = Refusal(counts={})
    assert not refusal.is_worth_waiting
    assert refusal.describe() == "no node is connected"


@examples(50)
@given(_COUNTS)
def test_the_words_tell_every_number(counts: dict[Reason, int]) -> None:
    told = Refusal(counts=counts).describe()
    assert "\n" not in told
    assert all(f" {count} " in told for count in counts.values())


@pytest.mark.parametrize("reason", sorted(Reason))
def test_each_reason_has_words_of_its_own(reason: Reason) -> None:
    told = {Refusal(counts={other: 1}).describe() for other in Reason if other is not reason}
    assert Refusal(counts={reason: 1}).describe() not in told
