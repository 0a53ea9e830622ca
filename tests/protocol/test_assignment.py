"""Is a node told all that the client said, and nothing that it did not?"""

from __future__ import annotations

import json
from itertools import chain, combinations
from typing import Any

import msgspec
import pytest

from dragoman.core.job import Speech
from dragoman.protocol.assignment import make_assignment
from tests.support.builders import a_request, a_speech

ALWAYS = {
    "type",
    "job_id",
    "attempt_id",
    "session_id",
    "utterance_index",
    "src_lang",
    "tgt_lang",
    "pipeline",
    "audio",
    "audio_format",
    "sample_rate",
    "trace_id",
}
OPTIONAL: dict[str, Any] = {
    "dialect": "BR",
    "features": {"a": {"b": [1]}},
    "mode": "two_way_auto",
    "lang_a": "en",
    "lang_b": "pt",
    "auto_langs": ("de", "fr"),
    "enable_streaming_asr": False,
    "partial_update_interval_ms": 0,
    "is_manual_cut": True,
    "is_pause_triggered": True,
    "is_timeout_triggered": True,
}
SERVICES = ("asr", "nmt", "tts", "semantic", "tone")


def sent(speech: Speech, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    """What a node reads."""
    read: dict[str, Any] = json.loads(msgspec.json.encode(make_assignment(a_request(speech=speech, **fields), attempt)))
    return read


def test_what_was_absent_stays_absent() -> None:
    assert sent(a_speech()).keys() == ALWAYS


@pytest.mark.parametrize("field", OPTIONAL)
def test_what_was_said_is_passed_on_as_it_was(field: str) -> None:
    message = sent(a_speech(**{field: OPTIONAL[field]}))
    assert message.keys() == ALWAYS | {field}
    assert message[field] == json.loads(json.dumps(OPTIONAL[field]))


def test_every_field_of_the_speech_is_passed_on() -> None:
    passed_on = {"src_lang", "tgt_lang", "audio", "audio_format", "sample_rate", "services"}
    assert set(Speech.__struct_fields__) == passed_on | OPTIONAL.keys()


def test_a_job_keeps_its_names() -> None:
    message = sent(a_speech(), attempt=3, utterance_index=7, trace_id="t9", session_id="s9", job_id="j9")
    names = ("job_id", "attempt_id", "session_id", "utterance_index", "trace_id")
    assert [message[name] for name in names] == ["j9", 3, "s9", 7, "t9"]


@pytest.mark.parametrize("services", list(chain.from_iterable(combinations(SERVICES, n) for n in range(1, 6))))
def test_the_pipeline_names_every_service(services: tuple[str, ...]) -> None:
    wanted = {f"use_{service}": service in services for service in ("asr", "nmt", "tts")}
    wanted |= {f"use_{service}": True for service in ("semantic", "tone") if service in services}
    assert sent(a_speech(services=frozenset(services)))["pipeline"] == wanted
