"""Is what a cluster says of itself understood?"""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.store.redis.topology import Endpoint, SlotRange, key_slot, parse_redirect, parse_slots

ASKED = Endpoint("asked.example", 6379)


@pytest.mark.parametrize(
    ("key", "same_as"),
    [
        (b"p:v1:jobs:{job:1}", b"job:1"),
        (b"{a}{b}", b"a"),
        (b"}{a}", b"a"),
        (b"{{a}", b"{a"),
        (b"{a", b"{a"),
    ],
)
def test_keys_with_the_same_in_their_first_braces_have_the_same_slot(key: bytes, same_as: bytes) -> None:
    assert key_slot(key) == key_slot(same_as)


def test_empty_braces_are_no_tag() -> None:
    assert key_slot(b"{}a") != key_slot(b"{}b")


def test_the_slot_of_the_specification_is_found() -> None:
    assert key_slot(b"123456789") == 0x31C3


@pytest.mark.parametrize(
    ("node", "endpoint"),
    [
        ([b"10.0.0.1", 7000, b"id", []], Endpoint("10.0.0.1", 7000)),
        ([b"10.0.0.1", 7000], Endpoint("10.0.0.1", 7000)),
        ([b"", 7000, b"id", []], Endpoint("asked.example", 7000)),
        ([None, 7000, b"id", []], Endpoint("asked.example", 7000)),
        ([b"?", 7000, b"id", [b"ip", b"10.0.0.1"]], Endpoint("10.0.0.1", 7000)),
    ],
)
def test_a_server_is_reached_where_the_cluster_says(node: list[Any], endpoint: Endpoint) -> None:
    assert parse_slots([[0, 5, node, node]], ASKED) == (SlotRange(0, 5, endpoint, (endpoint,)),)


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", (3999, Endpoint("127.0.0.1", 6381))),
        ("ASK 3999 store.example:6381", (3999, Endpoint("store.example", 6381))),
        ("MOVED 3999 ::1:6381", (3999, Endpoint("::1", 6381))),
        ("MOVED 3999 :6381", (3999, Endpoint("asked.example", 6381))),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED elsewhere", None),
    ],
)
def test_a_redirect_says_which_slot_is_where(text: str, redirect: tuple[int, Endpoint] | None) -> None:
    assert parse_redirect(text, ASKED) == redirect
