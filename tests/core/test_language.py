"""Do people, nodes and files mean the same language when they write it differently?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.language import AUTO, LanguageTagError, parse_language
from tests.core.fleet import examples

_PRIMARY = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)
_SUBTAGS = st.lists(st.from_regex("[A-Za-z0-9]{1,8}", fullmatch=True), max_size=3)


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("en", "en"),
        ("pt-BR", "pt"),
        ("zh-CN", "zh"),
        ("zh_Hans", "zh"),
        ("zh-Hant-TW", "zh"),
        ("cmn", "zh"),
        ("arb", "ar"),
        ("nb-NO", "no"),
        ("nob", "no"),
        ("nn", "nn"),
        ("iw", "he"),
        ("in-ID", "id"),
        ("ji", "yi"),
        ("jw", "jv"),
        ("mo", "ro"),
        ("de-1996-x-private", "de"),
        ("ast", "ast"),
    ],
)
def test_tags_of_one_language_are_that_language(tag: str, language: str) -> None:
    assert parse_language(tag) == language


@pytest.mark.parametrize("tag", ["auto", "AUTO", "Auto"])
def test_auto_is_auto_in_any_case(tag: str) -> None:
    assert parse_language(tag) == AUTO


@pytest.mark.parametrize(
    "tag",
    [
        "",
        " ",
        "e",
        "english-language-x-very-long-indeed-and-more",
        "anguishing",
        "en-",
        "-en",
        "en--US",
        "en US",
        " en",
        "en\n",
        "e1",
        "12",
        "en-toolongsubtag",
        "zh/CN",
        "日本",
        "ën",
        "en\x00",
    ],
)
def test_what_is_no_tag_is_refused_with_what_was_seen_and_what_is_wanted(tag: str) -> None:
    with pytest.raises(LanguageTagError) as caught:
        parse_language(tag)
    assert repr(tag[:40]) in str(caught.value)
    assert "'en'" in str(caught.value)


def test_a_refusal_does_not_repeat_a_text_of_any_length() -> None:
    with pytest.raises(LanguageTagError) as caught:
        parse_language("x" * 100_000)
    assert len(str(caught.value)) < 200


@examples(200)
@given(_PRIMARY, _SUBTAGS, st.sampled_from("-_"))
def test_case_region_script_and_separator_make_no_difference(primary: str, subtags: list[str], separator: str) -> None:
    tag = separator.join([primary, *subtags])
    language = parse_language(primary)
    assert parse_language(tag) == parse_language(tag.upper()) == language


@examples(200)
@given(_PRIMARY)
def test_a_language_is_its_own_tag(primary: str) -> None:
    language = parse_language(primary)
    assert parse_language(language) == language
    assert language == language.lower()


@examples(300)
@given(st.text(max_size=40))
def test_any_text_is_a_language_or_refused(text: str) -> None:
    try:
        language = parse_language(text)
    except LanguageTagError:
        return
    assert language.isascii()
    assert language.isalpha()
    assert 2 <= len(language) <= 8
