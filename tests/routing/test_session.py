"""What does a session take along when it goes on elsewhere?"""

from __future__ import annotations

import msgspec

from dragoman.core.ids import JobId
from dragoman.protocol.codec import session_server_codec
from dragoman.protocol.segmentation import Segmenter
from dragoman.routing.mailbox import Mailbox
from dragoman.routing.session import Session
from dragoman.store.interface import Parked, Place
from tests.support.builders import a_record, a_result


class _Socket:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, object]] = []

    def send(self, frame: bytes) -> None:
        self.sent.append(msgspec.json.decode(frame))

    def close(self, code: int, reason: str) -> None:
        """It is over."""


def _session() -> Session:
    return Session(
        a_record(),
        gap_timeout_ms=1000,
        segmenter=Segmenter(pause_ms=1000, max_duration_ms=1000),
        bytes_max=10_000,
        place=Place(),
        token_digest=b"",
    )


def _mailbox() -> tuple[Mailbox, _Socket]:
    socket = _Socket()
    return Mailbox(socket, session_server_codec(is_binary=False)), socket


def _serials(parked: list[Parked]) -> list[int]:
    return [item.serial for item in parked]


def test_what_is_on_its_way_into_the_store_goes_along_with_its_number() -> None:
    session = _session()
    to_park, _ = session.send_terminals([a_result()], 0)
    unconfirmed, _ = session.give_up()
    assert _serials(unconfirmed) == _serials(to_park) == [1]


def test_what_lies_in_the_store_is_found_there() -> None:
    session = _session()
    to_park, _ = session.send_terminals([a_result()], 0)
    session.parked(to_park)
    assert session.give_up() == ([], [])


def test_what_was_sent_and_perhaps_not_read_goes_along_also_after_the_connection_is_lost() -> None:
    session, (mailbox, _) = _session(), _mailbox()
    session.attach(mailbox, (), None)
    session.send_terminals([a_result()], 0)
    session.detach(mailbox, 0)
    unconfirmed, _ = session.give_up()
    assert _serials(unconfirmed) == [1]


def test_what_did_not_get_into_the_store_is_sent_on_a_resume_here() -> None:
    session, (mailbox, socket) = _session(), _mailbox()
    to_park, _ = session.send_terminals([a_result(text_translated="kept")], 0)
    session.attach(mailbox, tuple(to_park), None)
    assert [message["text_translated"] for message in socket.sent] == ["kept"], "once, though it is in the store too"


def test_the_end_of_a_job_is_news_once_and_again_when_it_is_asked_for_anew() -> None:
    session, job_id = _session(), JobId("j1")
    assert session.is_news(job_id)
    session.send_terminals([a_result(job_id=job_id)], 0)
    assert not session.is_news(job_id)
    assert session.begin(job_id, 0)
    assert session.is_news(job_id)
