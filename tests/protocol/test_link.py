"""How many mistakes may a peer make, and what is it told of each?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragoman.protocol.codec import node_server_codec, session_server_codec
from dragoman.protocol.fields import ErrorCode
from dragoman.protocol.link import STRIKES_MAX, Fault, Link
from dragoman.protocol.node_messages import NodeInbound, NodeRegister
from dragoman.protocol.session_messages import SessionInbound, SessionInit
from tests.support.builders import a_chunk, a_job_ack, a_node_register, a_session_init, an_utterance


def a_link(*, is_open: bool = True, is_binary: bool = False) -> Link[SessionInbound]:
    link: Link[SessionInbound] = Link(session_server_codec(is_binary=is_binary), SessionInit)
    link.is_open = is_open
    return link


def say(link: Link[Any], frame: Any, *, is_text: bool = True) -> Any:
    return link.receive(frame if isinstance(frame, bytes) else msgspec.json.encode(frame), is_text=is_text)


def fault(link: Link[Any], frame: Any, *, is_text: bool = True) -> Fault:
    answer = say(link, frame, is_text=is_text)
    assert isinstance(answer, Fault)
    return answer


def code(answer: Fault) -> str:
    assert answer.error is not None
    return answer.error.code


def test_a_good_message_passes() -> None:
    assert say(a_link(), an_utterance()) == an_utterance()


def test_a_bad_message_is_answered_and_the_peer_stays() -> None:
    answer = fault(a_link(), b"{")
    assert code(answer) == ErrorCode.INVALID_MESSAGE
    assert not answer.is_last


def test_twenty_bad_messages_in_a_row_are_too_many() -> None:
    link = a_link()
    assert STRIKES_MAX == 20
    assert [fault(link, b"{").is_last for _ in range(20)] == [False] * 19 + [True]


def test_a_good_message_makes_up_for_the_bad_ones() -> None:
    link = a_link()
    for _ in range(3):
        assert not any(fault(link, b"{").is_last for _ in range(STRIKES_MAX - 1))
        say(link, an_utterance())


def test_what_the_connection_finds_wrong_counts_too() -> None:
    link = a_link()
    assert not any(link.fault("audio: empty").is_last for _ in range(STRIKES_MAX - 1))
    assert link.fault("audio: empty").is_last


def test_a_fault_of_the_connection_has_its_details() -> None:
    error = a_link().fault("audio: empty", utterance_index=3).error
    assert error is not None
    assert (error.message, error.details) == ("audio: empty", {"utterance_index": 3, "retryable": False})


@pytest.mark.parametrize("is_binary", [False, True])
def test_a_frame_of_the_wrong_kind_is_a_bad_message(is_binary: bool) -> None:
    link = a_link(is_binary=is_binary)
    answers = [fault(link, an_utterance(), is_text=is_binary) for _ in range(STRIKES_MAX)]
    assert {code(answer) for answer in answers} == {ErrorCode.INVALID_MESSAGE}
    assert [answer.is_last for answer in answers] == [False] * 19 + [True]
    error = answers[0].error
    assert error is not None
    assert ("binary" if is_binary else "text") in error.message


# --- before the opening


def test_the_opening_message_comes_first() -> None:
    assert say(a_link(is_open=False), a_session_init()) == a_session_init()


def test_a_node_opens_with_its_own_message() -> None:
    link: Link[NodeInbound] = Link(node_server_codec(is_binary=False), NodeRegister)
    assert say(link, a_node_register()) == a_node_register()
    assert fault(link, a_job_ack()).is_last


@pytest.mark.parametrize("frame", [an_utterance(), a_chunk(), {"type": "telepathy"}])
def test_anything_else_before_it_ends_the_connection(frame: Any) -> None:
    answer = fault(a_link(is_open=False), frame)
    assert code(answer) == ErrorCode.INVALID_MESSAGE
    assert answer.is_last
    assert answer.error is not None
    assert "session_init" in answer.error.message


@pytest.mark.parametrize("frame", [b"", b"{", {"type": "session_init"}])
def test_a_bad_message_before_it_ends_the_connection(frame: Any) -> None:
    assert fault(a_link(is_open=False), frame).is_last


# --- types that nobody knows


def test_an_unknown_type_is_answered_once() -> None:
    link = a_link()
    first, again, other = (fault(link, {"type": kind}) for kind in ("telepathy", "telepathy", "seance"))
    assert code(first) == ErrorCode.UNSUPPORTED_FEATURE
    assert again.error is None
    assert code(other) == ErrorCode.UNSUPPORTED_FEATURE


def test_unknown_types_are_no_bad_messages() -> None:
    link = a_link()
    answers = [fault(link, {"type": f"new_{number % 30}"}) for number in range(10 * STRIKES_MAX)]
    assert not any(answer.is_last for answer in answers)


def test_unknown_types_do_not_make_up_for_bad_messages() -> None:
    link = a_link()
    for _ in range(STRIKES_MAX - 1):
        fault(link, b"{")
        fault(link, {"type": "telepathy"})
    assert fault(link, b"{").is_last


def test_at_some_number_of_unknown_types_no_more_are_answered() -> None:
    link = a_link()
    answers = [fault(link, {"type": f"new_{number}"}) for number in range(1000)]
    assert sum(answer.error is not None for answer in answers) == 64


def test_the_name_of_an_unknown_type_is_not_kept_whole() -> None:
    link = a_link()
    answer = fault(link, {"type": "x" * 1_000_000})
    assert answer.error is not None
    assert len(answer.error.message) < 200
    assert max(len(kind) for kind in link._unknown) == 64


# --- which utterance was meant


@pytest.mark.parametrize(
    ("frame", "details"),
    [
        ({"type": "utterance", "utterance_index": 7, "job_id": "j1"}, {"utterance_index": 7, "job_id": "j1"}),
        ({"type": "utterance", "utterance_index": 2**53}, {"utterance_index": 2**53}),
        ({"type": "utterance", "utterance_index": 2**53 + 1}, {}),
        ({"type": "utterance", "utterance_index": -1}, {}),
        ({"type": "utterance", "utterance_index": True}, {}),
        ({"type": "utterance", "utterance_index": "7"}, {}),
        ({"type": "utterance", "job_id": "x" * 257}, {}),
        ([{"utterance_index": 7}], {}),
        (b'{"utterance_index": 7', {}),
    ],
)
def test_a_bad_message_is_answered_with_the_utterance_it_meant(frame: Any, details: dict[str, Any]) -> None:
    error = fault(a_link(), frame).error
    assert error is not None
    assert error.details == details | {"retryable": False}


def test_an_error_names_the_field_and_what_was_wanted() -> None:
    frame = msgspec.to_builtins(a_chunk()) | {"seq": "one"}
    error = fault(a_link(), frame).error
    assert error is not None
    assert error.message == "Expected `int`, got `str` - at `seq`"
