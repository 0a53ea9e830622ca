"""What do a session and the scheduler say to each other? One struct for each message type of docs/protocol.md."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, structs

from dragoman.protocol.fields import (
    Error,
    FreeForm,
    Identifier,
    Int,
    LanguageTag,
    Pipeline,
    ShortText,
    UInt,
    check_free,
)

Mode: TypeAlias = Literal["one_way", "two_way_auto"]
AudioFormat: TypeAlias = Literal["pcm16", "wav", "opus", "text"]


class _Message(Struct, tag_field="type", kw_only=True, omit_defaults=True, frozen=True):
    """A message; `type` on the wire is the tag of its class."""


# --- session to scheduler


class SessionInit(_Message, tag="session_init", frozen=True, kw_only=True):
    """Open a session, or resume one with `resume_token`. What is set here is the default of every utterance."""

    client_version: ShortText
    platform: ShortText
    src_lang: LanguageTag
    tgt_lang: LanguageTag
    dialect: ShortText | None = None
    features: FreeForm | None = None
    pairing_code: ShortText | None = None
    tenant_id: Identifier | None = None
    mode: Mode | None = None
    lang_a: LanguageTag | None = None
    lang_b: LanguageTag | None = None
    auto_langs: Annotated[list[LanguageTag], Meta(max_length=64)] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: UInt | None = None
    trace_id: Identifier | None = None
    resume_token: ShortText | None = None
    terminals_received: UInt | None = None

    def __post_init__(self) -> None:
        check_free("features", self.features)


class Utterance(_Message, tag="utterance", frozen=True, kw_only=True):
    """One complete piece of speech, or of text (`audio_format` text)."""

    session_id: Identifier
    utterance_index: UInt
    manual_cut: bool
    src_lang: LanguageTag
    tgt_lang: LanguageTag
    audio: bytes
    audio_format: AudioFormat
    sample_rate: UInt
    dialect: ShortText | None = None
    features: FreeForm | None = None
    mode: Mode | None = None
    lang_a: LanguageTag | None = None
    lang_b: LanguageTag | None = None
    auto_langs: Annotated[list[LanguageTag], Meta(max_length=64)] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: UInt | None = None
    trace_id: Identifier | None = None
    request_id: Identifier | None = None
    deadline_ms: UInt | None = None
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    pipeline: Pipeline | None = None
    preferred_node_id: Identifier | None = None

    def __post_init__(self) -> None:
        check_free("features", self.features)


class AudioChunk(_Message, tag="audio_chunk", frozen=True, kw_only=True):
    """A piece of a stream of PCM16 mono at the negotiated sample rate; a final one may be empty."""

    session_id: Identifier
    seq: UInt
    is_final: bool
    payload: bytes | None = None
    client_timestamp_ms: Int | None = None


class ClientJobCancel(_Message, tag="job_cancel", frozen=True, kw_only=True):
    """The client withdraws a job of its own."""

    job_id: Identifier


class ClientHeartbeat(_Message, tag="client_heartbeat", frozen=True, kw_only=True):
    """The client lives. `terminals_received` tells what need not be kept for a resume."""

    session_id: Identifier
    timestamp: Int
    terminals_received: UInt | None = None


class TtsPlayEnded(_Message, tag="tts_play_ended", frozen=True, kw_only=True):
    """The client finished playing a result."""

    session_id: Identifier
    trace_id: ShortText
    group_id: ShortText
    ts_end_ms: Int


class SessionClose(_Message, tag="session_close", frozen=True, kw_only=True):
    """The session ends for good: it cannot be resumed."""

    session_id: Identifier
    reason: ShortText


SessionInbound: TypeAlias = (
    SessionInit | Utterance | AudioChunk | ClientJobCancel | ClientHeartbeat | TtsPlayEnded | SessionClose
)

# --- scheduler to session


class SessionInitAck(_Message, tag="session_init_ack", frozen=True, kw_only=True):
    """The session is open. `resume_token` is good for one resume; the next ack carries another."""

    session_id: str
    message: str
    trace_id: str
    resume_token: str
    instance_id: str
    assigned_node_id: str | None = None
    protocol_version: str | None = None
    negotiated_audio_format: str | None = None
    negotiated_sample_rate: int | None = None
    negotiated_channel_count: int | None = None


class UiEventKind(StrEnum):
    """How far an utterance has come."""

    INPUT_STARTED = "INPUT_STARTED"
    INPUT_ENDED = "INPUT_ENDED"
    ASR_PARTIAL = "ASR_PARTIAL"
    ASR_FINAL = "ASR_FINAL"
    DISPATCHED = "DISPATCHED"
    NODE_ACCEPTED = "NODE_ACCEPTED"
    NMT_DONE = "NMT_DONE"
    TTS_PLAY_STARTED = "TTS_PLAY_STARTED"
    TTS_PLAY_ENDED = "TTS_PLAY_ENDED"
    ERROR = "ERROR"


class UiEvent(_Message, tag="ui_event", frozen=True, kw_only=True):
    """Progress, for people to see. A hint: it may be left out where a later message says more."""

    trace_id: str
    session_id: str
    job_id: str
    utterance_index: int
    event: UiEventKind
    status: Literal["ok", "error"]
    elapsed_ms: int | None = None
    error_code: str | None = None
    hint: str | None = None


class SessionAsrPartial(_Message, tag="asr_partial", frozen=True, kw_only=True):
    """What has been recognised so far."""

    session_id: str
    utterance_index: int
    job_id: str
    text: str
    is_final: bool
    trace_id: str


class TranslationResult(_Message, tag="translation_result", frozen=True, kw_only=True):
    """The terminal message of an utterance that went well."""

    session_id: str
    utterance_index: int
    job_id: str
    text_asr: str
    text_translated: str
    tts_audio: bytes
    tts_format: str
    trace_id: str
    extra: FreeForm | None = None
    group_id: str | None = None
    part_index: int | None = None
    service_timings: FreeForm | None = None
    network_timings: FreeForm | None = None
    scheduler_sent_at_ms: int | None = None
    asr_quality_level: str | None = None
    reason_codes: list[Any] | None = None
    quality_score: float | None = None
    rerun_count: int | None = None
    segments_meta: FreeForm | None = None


class MissingResult(_Message, tag="missing_result", frozen=True, kw_only=True):
    """The terminal message of an index for which nothing else will come."""

    session_id: str
    utterance_index: int
    reason: str
    created_at_ms: int
    trace_id: str | None = None


class ServerHeartbeat(_Message, tag="server_heartbeat", frozen=True, kw_only=True):
    """The answer to `client_heartbeat`."""

    session_id: str
    timestamp: int


class SessionCloseAck(_Message, tag="session_close_ack", frozen=True, kw_only=True):
    """The session has ended."""

    session_id: str


class Backpressure(_Message, tag="backpressure", frozen=True, kw_only=True):
    """A limit is near: slow down before something is refused."""

    action: Literal["SLOW_DOWN", "PAUSE", "BUSY"]
    resume_after_ms: int | None = None
    message: str | None = None


Terminal: TypeAlias = TranslationResult | MissingResult | Error


def readdressed(terminal: Terminal, index: int) -> Terminal:
    """The same end, told of another utterance index: for a request that was asked again under that one."""
    if isinstance(terminal, Error):
        return structs.replace(terminal, details=(terminal.details or {}) | {"utterance_index": index})
    return structs.replace(terminal, utterance_index=index)


SessionOutbound: TypeAlias = (
    SessionInitAck
    | UiEvent
    | SessionAsrPartial
    | TranslationResult
    | MissingResult
    | ServerHeartbeat
    | SessionCloseAck
    | Backpressure
    | Error
)
