"""What do a node and the scheduler say to each other? One struct for each message type of docs/protocol.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from dragoman.protocol.fields import (
    Error,
    FreeForm,
    Identifier,
    Int,
    LanguageTag,
    Percent,
    Pipeline,
    ShortText,
    UInt,
    check_free,
)


class _Message(Struct, tag_field="type", kw_only=True, omit_defaults=True, frozen=True):
    """A message; `type` on the wire is the tag of its class."""


class _Part(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """An object inside a message."""


class Gpu(_Part, frozen=True, kw_only=True):
    """One graphics card."""

    name: ShortText
    memory_gb: float


class Hardware(_Part, frozen=True, kw_only=True):
    """What the node runs on."""

    cpu_cores: UInt
    memory_gb: float
    gpus: list[Gpu] | None = None


class InstalledModel(_Part, frozen=True, kw_only=True):
    """A model on the node's disk."""

    model_id: Identifier
    kind: ShortText
    version: ShortText
    src_lang: LanguageTag | None = None
    tgt_lang: LanguageTag | None = None
    dialect: ShortText | None = None
    enabled: bool | None = None


class InstalledService(_Part, frozen=True, kw_only=True):
    """A program on the node that offers one service."""

    service_id: Identifier
    type: ShortText
    device: ShortText
    status: ShortText
    version: ShortText | None = None
    model_id: ShortText | None = None
    engine: ShortText | None = None
    mem_mb: float | None = None
    warmup_ms: float | None = None
    last_error: ShortText | None = None


class CapabilityByType(_Part, frozen=True, kw_only=True):
    """Whether a service of one type is ready. Types that we do not know are passed over."""

    type: ShortText
    ready: bool
    reason: ShortText | None = None
    ready_impl_ids: list[ShortText] | None = None


class PairDeclaration(_Part, frozen=True, kw_only=True):
    """From one language into another."""

    src: LanguageTag
    tgt: LanguageTag


_Languages: TypeAlias = Annotated[list[LanguageTag], Meta(max_length=1000)]
_Pairs: TypeAlias = Annotated[list[PairDeclaration], Meta(max_length=10_000)]


class NmtDeclaration(_Part, frozen=True, kw_only=True):
    """What one translation model can do."""

    model_id: Identifier
    languages: _Languages
    rule: Literal["any_to_any", "any_to_en", "en_to_any", "specific_pairs"]
    blocked_pairs: _Pairs | None = None
    supported_pairs: _Pairs | None = None


class LanguageDeclaration(_Part, frozen=True, kw_only=True):
    """Which languages a node serves. A list that is absent restricts nothing; an empty one allows nothing."""

    asr_languages: _Languages | None = None
    tts_languages: _Languages | None = None
    semantic_languages: _Languages | None = None
    nmt_capabilities: Annotated[list[NmtDeclaration], Meta(max_length=1000)] | None = None
    supported_language_pairs: _Pairs | None = None


_Models: TypeAlias = Annotated[list[InstalledModel], Meta(max_length=1000)]
_Services: TypeAlias = Annotated[list[InstalledService], Meta(max_length=1000)]
_Capabilities: TypeAlias = Annotated[list[CapabilityByType], Meta(max_length=100)]


class ResourceUsage(_Part, frozen=True, kw_only=True):
    """How busy the machine is; percent of all of it, 0 to 100."""

    cpu_percent: Percent
    mem_percent: Percent
    running_jobs: UInt
    gpu_percent: Percent | None = None
    gpu_mem_percent: Percent | None = None


# --- node to scheduler


class NodeRegister(_Message, tag="node_register", frozen=True, kw_only=True):
    """Who the node is and what it can do."""

    version: ShortText
    platform: ShortText
    hardware: Hardware
    installed_models: _Models
    capability_by_type: _Capabilities
    features_supported: FreeForm
    accept_public_jobs: bool
    node_id: Identifier | None = None
    capability_schema_version: ShortText | None = None
    installed_services: _Services | None = None
    advanced_features: list[Any] | None = None
    language_capabilities: LanguageDeclaration | None = None
    max_concurrent_jobs: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    tenant_id: Identifier | None = None


class NodeHeartbeat(_Message, tag="node_heartbeat", frozen=True, kw_only=True):
    """The node lives; what it can do now, and what it runs."""

    node_id: Identifier
    timestamp: Int
    resource_usage: ResourceUsage
    installed_services: _Services
    capability_by_type: _Capabilities
    installed_models: _Models | None = None
    rerun_metrics: FreeForm | None = None
    asr_metrics: FreeForm | None = None
    processing_metrics: FreeForm | None = None
    language_capabilities: LanguageDeclaration | None = None
    running_job_ids: Annotated[list[Identifier], Meta(max_length=100_000)] | None = None


class JobAck(_Message, tag="job_ack", frozen=True, kw_only=True):
    """The node has taken the job."""

    job_id: Identifier
    attempt_id: UInt
    node_id: Identifier
    session_id: ShortText
    trace_id: ShortText


class JobStarted(_Message, tag="job_started", frozen=True, kw_only=True):
    """The node has begun to work on the job."""

    job_id: Identifier
    attempt_id: UInt
    node_id: Identifier
    session_id: ShortText
    trace_id: ShortText


class NodeAsrPartial(_Message, tag="asr_partial", frozen=True, kw_only=True):
    """What the node has recognised so far."""

    job_id: Identifier
    node_id: Identifier
    session_id: ShortText
    utterance_index: UInt
    text: str
    is_final: bool
    trace_id: ShortText


class JobFailure(_Part, frozen=True, kw_only=True):
    """Why the node could not do the job."""

    code: ShortText
    message: str
    details: FreeForm | None = None


class JobResult(_Message, tag="job_result", frozen=True, kw_only=True):
    """What came of the job."""

    job_id: Identifier
    attempt_id: UInt
    node_id: Identifier
    session_id: ShortText
    utterance_index: UInt
    success: bool
    trace_id: ShortText
    text_asr: str | None = None
    text_translated: str | None = None
    tts_audio: bytes | None = None
    tts_format: ShortText | None = None
    extra: FreeForm | None = None
    processing_time_ms: float | None = None
    error: JobFailure | None = None
    group_id: ShortText | None = None
    part_index: Int | None = None
    node_completed_at_ms: Int | None = None
    service_timings: FreeForm | None = None
    asr_quality_level: ShortText | None = None
    reason_codes: list[Any] | None = None
    quality_score: float | None = None
    rerun_count: Int | None = None
    segments_meta: FreeForm | None = None

    def __post_init__(self) -> None:
        check_free("extra", self.extra)
        check_free("service_timings", self.service_timings)
        check_free("reason_codes", self.reason_codes)
        check_free("segments_meta", self.segments_meta)


class NodeError(_Message, tag="node_error", frozen=True, kw_only=True):
    """Something is wrong at the node that belongs to no job."""

    node_id: Identifier
    code: ShortText
    message: str
    details: FreeForm | None = None


class NodeDrain(_Message, tag="node_drain", frozen=True, kw_only=True):
    """The node wants to finish what runs and get nothing more."""

    node_id: Identifier | None = None


NodeInbound: TypeAlias = (
    NodeRegister | NodeHeartbeat | JobAck | JobStarted | NodeAsrPartial | JobResult | NodeError | NodeDrain
)

# --- scheduler to node


class NodeRegisterAck(_Message, tag="node_register_ack", frozen=True, kw_only=True):
    """The node is known by this id from now on."""

    node_id: str
    message: str
    status: str
    heartbeat_interval_ms: int | None = None


class JobAssign(_Message, tag="job_assign", frozen=True, kw_only=True):
    """One attempt at a job, for this node."""

    job_id: str
    attempt_id: int
    session_id: str
    utterance_index: int
    src_lang: str
    tgt_lang: str
    pipeline: Pipeline
    audio: bytes
    audio_format: str
    sample_rate: int
    trace_id: str
    dialect: str | None = None
    features: FreeForm | None = None
    mode: str | None = None
    lang_a: str | None = None
    lang_b: str | None = None
    auto_langs: list[str] | None = None
    enable_streaming_asr: bool | None = None
    partial_update_interval_ms: int | None = None
    group_id: str | None = None
    part_index: int | None = None
    context_text: str | None = None
    padding_ms: int | None = None
    is_manual_cut: bool | None = None
    is_pause_triggered: bool | None = None
    is_timeout_triggered: bool | None = None


class NodeJobCancel(_Message, tag="job_cancel", frozen=True, kw_only=True):
    """Nobody wants the job any more; answering it all the same does no harm."""

    job_id: str
    trace_id: str | None = None
    reason: str | None = None


class NodeControl(_Message, tag="node_control", frozen=True, kw_only=True):
    """What the operator wants of the node."""

    command: Literal["drain", "shutdown"]
    reason: str | None = None


NodeOutbound: TypeAlias = NodeRegisterAck | JobAssign | NodeJobCancel | NodeControl | Error
