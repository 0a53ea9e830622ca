"""Does a request have one name, and no other request the same?"""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.core.ids import RequestId, SessionId, TenantId, derive_job_id
from tests.core.fleet import examples

Parts = tuple[str | None, str, str]

_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
# Texts that look like the seams between parts are the ones that could collide.
_SEAMS = st.text("01:a", max_size=5)
_TEXT = _SEAMS | _ANY_TEXT
_PARTS = st.tuples(st.none() | _TEXT.filter(bool), _TEXT, _TEXT)


def _derive(parts: Parts) -> str:
    tenant, session, request = parts
    return derive_job_id(None if tenant is None else TenantId(tenant), SessionId(session), RequestId(request))


@examples(300)
@given(_PARTS, _PARTS)
@example(("a", "b", "c"), ("ab", "", "c"))
@example((None, "1:a", ""), (None, "", "1:a"))
@example((None, "a0:", "b"), (None, "a", "0:b"))
@example((None, "\ud83d\ude00", ""), (None, "\U0001f600", ""))
def test_different_requests_have_different_ids_whatever_texts_name_them(one: Parts, other: Parts) -> None:
    assert (_derive(one) == _derive(other)) == (one == other)


@examples(100)
@given(st.text("01:a", max_size=8), st.data())
def test_moving_the_seams_between_the_parts_gives_another_id(text: str, data: st.DataObject) -> None:
    seams = st.tuples(st.integers(1, len(text) + 1), st.integers(1, len(text) + 1)).map(sorted)
    cuts = data.draw(st.lists(seams, min_size=2, max_size=2))
    named = {(text[:first] or None, text[first:second], text[second:]) for first, second in cuts}
    assert len({_derive(parts) for parts in named}) == len(named)


@examples(100)
@given(_PARTS)
def test_an_id_is_short_and_plain_whatever_texts_a_client_chose(parts: Parts) -> None:
    assert re.fullmatch("job-[0-9a-f]{32}", _derive(parts))


def test_ids_never_change_because_other_instances_and_stored_jobs_know_them() -> None:
    assert _derive((None, "s1", "0")) == "job-736f4d6658adadd3ec5b4e769ce91405"
    assert _derive(("acme", "sess-é", "r:1")) == "job-50ca8059434274fa7ac53c09fd5049f3"
