"""What did a client ask for? A request is what it said, once; a job is what becomes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from dragoman.core.capability import Need
from dragoman.core.ids import JobId, NodeId, RequestId, SessionId, TenantId, TraceId

PRIORITY_DEFAULT = 5
"""In the middle of 0 (can wait) to 9 (most urgent)."""


class Speech(Struct, frozen=True, kw_only=True):
    """What is to be translated, and how: handed to the node as the client gave it."""

    src_lang: str
    tgt_lang: str
    audio: bytes
    audio_format: str
    sample_rate: int
    services: frozenset[str]
    dialect: str | None = None
    features: dict[str, Any] | None = None
    mode: str | None = None
    lang_a: str | None = None
    lang_b: str | None = None
    auto_langs: tuple[str, ...] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: int | None = None
    is_manual_cut: bool = False
    is_pause_triggered: bool = False
    is_timeout_triggered: bool = False


class JobRequest(Struct, frozen=True, kw_only=True):
    """One utterance to be translated: the whole input of a job. Times are milliseconds of the store's clock."""

    job_id: JobId
    session_id: SessionId
    request_id: RequestId
    utterance_index: int
    trace_id: TraceId
    need: Need
    speech: Speech
    accepted_ms: int
    deadline_ms: int | None = None
    tenant_id: TenantId | None = None
    priority: int = PRIORITY_DEFAULT


class Candidate(NamedTuple):
    """A node worth trying, and how many slots it has."""

    node_id: NodeId
    slots: int
