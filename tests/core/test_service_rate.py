"""Is the rate of service true, and the advice when to ask again within reason?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.service_rate import RETRY_MAX_MS, RETRY_MIN_MS, RETRY_UNKNOWN_MS, ServiceRate, retry_after_ms
from tests.core.fleet import examples

_GAPS_MS = st.lists(st.integers(0, 60_000), max_size=30)


def _a_steady_rate(every_ms: int, count: int) -> tuple[ServiceRate, int]:
    rate = ServiceRate()
    now_ms = 1_700_000_000_000
    for _ in range(count):
        now_ms += every_ms
        rate.count(now_ms)
    return rate, now_ms


def test_before_anything_was_served_the_rate_is_zero() -> None:
    assert ServiceRate().per_second(1_700_000_000_000) == 0


@pytest.mark.parametrize("every_ms", [10, 100, 500])
def test_a_steady_service_has_its_rate(every_ms: int) -> None:
    rate, now_ms = _a_steady_rate(every_ms, count=200_000 // every_ms)
    assert rate.per_second(now_ms) == pytest.approx(1000 / every_ms, rel=0.05)


def test_what_was_served_counts_half_after_ten_seconds_and_a_quarter_after_twenty() -> None:
    rate, now_ms = _a_steady_rate(100, count=50)
    at_first = rate.per_second(now_ms)
    assert rate.per_second(now_ms + 10_000) == pytest.approx(at_first / 2)
    assert rate.per_second(now_ms + 20_000) == pytest.approx(at_first / 4)


def test_asking_for_the_rate_does_not_change_it() -> None:
    rate, now_ms = _a_steady_rate(100, count=50)
    first = rate.per_second(now_ms + 5_000)
    rate.per_second(now_ms + 3_600_000)
    assert rate.per_second(now_ms + 5_000) == first


def test_the_rate_is_forgotten_after_a_long_silence() -> None:
    rate, now_ms = _a_steady_rate(10, count=1_000)
    year_ms = 365 * 24 * 3_600_000
    assert rate.per_second(now_ms + year_ms) == pytest.approx(0)
    assert retry_after_ms(rate, ahead=0, now_ms=now_ms + year_ms) == RETRY_UNKNOWN_MS


@pytest.mark.parametrize("rate", [None, ServiceRate()])
def test_without_experience_the_advice_is_a_fixed_one(rate: ServiceRate | None) -> None:
    assert retry_after_ms(rate, ahead=1_000, now_ms=5) == RETRY_UNKNOWN_MS


def test_who_comes_after_others_is_told_to_wait_for_them_all() -> None:
    rate, now_ms = _a_steady_rate(500, count=400)
    assert retry_after_ms(rate, ahead=0, now_ms=now_ms) == pytest.approx(500, rel=0.05)
    assert retry_after_ms(rate, ahead=9, now_ms=now_ms) == pytest.approx(5_000, rel=0.05)


@examples(200)
@given(_GAPS_MS, st.integers(0, 1_000_000), st.integers(0, 100_000))
def test_the_advice_is_never_too_soon_nor_too_late(gaps_ms: list[int], ahead: int, later_ms: int) -> None:
    rate = ServiceRate()
    now_ms = 0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        rate.count(now_ms)
    assert RETRY_MIN_MS <= retry_after_ms(rate, ahead=ahead, now_ms=now_ms + later_ms) <= RETRY_MAX_MS


@examples(100)
@given(_GAPS_MS, st.integers(0, 1_000), st.integers(1, 1_000))
def test_more_ahead_never_means_to_ask_sooner(gaps_ms: list[int], ahead: int, more: int) -> None:
    rate = ServiceRate()
    now_ms = 0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        rate.count(now_ms)
    assert retry_after_ms(rate, ahead=ahead, now_ms=now_ms) <= retry_after_ms(rate, ahead=ahead + more, now_ms=now_ms)
