"""What does a small, valid one of each look like? Every builder takes any field of what it builds as a keyword."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dragoman.core.capability import Need, Service, need
from dragoman.core.ids import JobId, NodeId, RequestId, SessionId, TenantId, TraceId
from dragoman.core.job import Candidate, JobRequest, Speech
from dragoman.core.language import Language
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.node_messages import (
    CapabilityByType,
    Hardware,
    InstalledModel,
    InstalledService,
    JobAck,
    JobResult,
    LanguageDeclaration,
    NmtDeclaration,
    NodeHeartbeat,
    NodeRegister,
    PairDeclaration,
    ResourceUsage,
)
from dragoman.protocol.session_messages import (
    AudioChunk,
    ClientHeartbeat,
    MissingResult,
    SessionInit,
    TranslationResult,
    Utterance,
)
from dragoman.store.interface import Parked, SessionRecord

ALL_SERVICES = ("asr", "nmt", "tts")


# --- jobs


def a_need(
    *,
    services: tuple[str, ...] = ALL_SERVICES,
    src: str = "en",
    tgt: str = "pt",
    tenant: str | None = None,
    preferred: str | None = None,
) -> Need:
    """What a node must be able to do."""
    return need(
        frozenset(Service(service) for service in services),
        ((Language(src), Language(tgt)),),
        None if tenant is None else TenantId(tenant),
        None if preferred is None else NodeId(preferred),
    )


def a_speech(**fields: Any) -> Speech:
    """A moment of silence in English, to become Portuguese."""
    speech = Speech(
        src_lang="en",
        tgt_lang="pt",
        audio=b"\0\0" * 16,
        audio_format="pcm16",
        sample_rate=16_000,
        services=frozenset(ALL_SERVICES),
    )
    return replace(speech, **fields)


def a_request(job_id: str = "j1", **fields: Any) -> JobRequest:
    """One utterance to be translated."""
    request = JobRequest(
        job_id=JobId(job_id),
        session_id=SessionId("s1"),
        request_id=RequestId(job_id),
        utterance_index=0,
        trace_id=TraceId("t1"),
        need=a_need(),
        speech=a_speech(),
        accepted_ms=0,
    )
    return replace(request, **fields)


def a_candidate(node_id: str = "n1", slots: int = 1) -> Candidate:
    """A node worth trying."""
    return Candidate(NodeId(node_id), slots)


def a_ranking(**slots: int) -> tuple[Candidate, ...]:
    """Nodes to try, in order, with how many slots each has: `a_ranking(n1=1, n2=2)`."""
    return tuple(a_candidate(node_id, number) for node_id, number in slots.items())


# --- how a job ends


def a_result(**fields: Any) -> TranslationResult:
    """The result of a job."""
    result = TranslationResult(
        session_id="s1",
        utterance_index=0,
        job_id="j1",
        text_asr="hello",
        text_translated="olá",
        tts_audio=b"",
        tts_format="pcm16",
        trace_id="t1",
    )
    return replace(result, **fields)


def an_error(code: str = ErrorCode.INTERNAL_ERROR, **fields: Any) -> Error:
    """An error."""
    return replace(Error(code=code, message="it went wrong"), **fields)


def a_missing_result(**fields: Any) -> MissingResult:
    """An index for which nothing comes."""
    return replace(
        MissingResult(session_id="s1", utterance_index=0, reason="gap_timeout", created_at_ms=1),
        **fields,
    )


# --- sessions


def a_session_init(**fields: Any) -> SessionInit:
    """A client that speaks English to a Portuguese."""
    return replace(SessionInit(client_version="1", platform="test", src_lang="en", tgt_lang="pt"), **fields)


def an_utterance(**fields: Any) -> Utterance:
    """A moment of silence."""
    utterance = Utterance(
        session_id="s1",
        utterance_index=0,
        manual_cut=True,
        src_lang="en",
        tgt_lang="pt",
        audio=b"\0\0" * 16,
        audio_format="pcm16",
        sample_rate=16_000,
    )
    return replace(utterance, **fields)


def a_text(text: str = "hello", **fields: Any) -> Utterance:
    """An utterance that was typed."""
    return an_utterance(audio=text.encode(), audio_format="text", sample_rate=0, **fields)


def a_chunk(seq: int = 0, payload: bytes = b"\0\0", **fields: Any) -> AudioChunk:
    """A piece of a stream."""
    return replace(AudioChunk(session_id="s1", seq=seq, is_final=False, payload=payload), **fields)


def a_client_heartbeat(**fields: Any) -> ClientHeartbeat:
    """A client that lives."""
    return replace(ClientHeartbeat(session_id="s1", timestamp=1), **fields)


def a_record(session_id: str = "s1", **fields: Any) -> SessionRecord:
    """What is remembered of a session."""
    record = SessionRecord(session_id=SessionId(session_id), tenant_id=None, init=a_session_init(), trace_id="t1")
    return replace(record, **fields)


def a_parked(serial: int = 1, **fields: Any) -> Parked:
    """A terminal message that waits for its session."""
    return replace(Parked(serial=serial, message=a_result(utterance_index=serial - 1)), **fields)


# --- nodes


def capabilities(*ready: str) -> list[CapabilityByType]:
    """Which services are ready."""
    return [CapabilityByType(type=kind, ready=True) for kind in ready]


def language_declaration(**fields: Any) -> LanguageDeclaration:
    """Which languages a node serves; nothing said restricts nothing. Pairs may be given as (src, tgt)."""
    if "supported_language_pairs" in fields:
        fields["supported_language_pairs"] = pairs(*fields["supported_language_pairs"])
    return LanguageDeclaration(**fields)


def nmt_declaration(rule: str = "any_to_any", *languages: str, **fields: Any) -> NmtDeclaration:
    """What one translation model can do."""
    return NmtDeclaration(model_id="m1", rule=rule, languages=list(languages), **fields)  # type: ignore[arg-type]


def pairs(*listed: tuple[str, str]) -> list[PairDeclaration]:
    """Pairs of languages."""
    return [PairDeclaration(src=src, tgt=tgt) for src, tgt in listed]


def a_model(model_id: str = "m1", kind: str = "asr", **fields: Any) -> InstalledModel:
    """A model on a node."""
    return replace(InstalledModel(model_id=model_id, kind=kind, version="1"), **fields)


def a_service(service_id: str = "asr-1", kind: str = "asr", **fields: Any) -> InstalledService:
    """A program on a node."""
    return replace(InstalledService(service_id=service_id, type=kind, device="cpu", status="running"), **fields)


def a_usage(**fields: Any) -> ResourceUsage:
    """A machine with little to do."""
    return replace(ResourceUsage(cpu_percent=1.0, mem_percent=1.0, running_jobs=0), **fields)


def a_node_register(node_id: str | None = "n1", **fields: Any) -> NodeRegister:
    """A node that can do everything, one job at a time."""
    register = NodeRegister(
        node_id=node_id,
        version="1",
        platform="test",
        hardware=Hardware(cpu_cores=1, memory_gb=1.0),
        installed_models=[],
        capability_by_type=capabilities(*ALL_SERVICES),
        features_supported={},
        accept_public_jobs=True,
        max_concurrent_jobs=1,
    )
    return replace(register, **fields)


def a_node_heartbeat(node_id: str = "n1", **fields: Any) -> NodeHeartbeat:
    """A node that lives and runs nothing."""
    heartbeat = NodeHeartbeat(
        node_id=node_id,
        timestamp=1,
        resource_usage=a_usage(),
        installed_services=[],
        capability_by_type=capabilities(*ALL_SERVICES),
        running_job_ids=[],
    )
    return replace(heartbeat, **fields)


def a_job_ack(**fields: Any) -> JobAck:
    """A node that takes a job."""
    return replace(JobAck(job_id="j1", attempt_id=1, node_id="n1", session_id="s1", trace_id="t1"), **fields)


def a_job_result(**fields: Any) -> JobResult:
    """A node that has done a job."""
    result = JobResult(
        job_id="j1",
        attempt_id=1,
        node_id="n1",
        session_id="s1",
        utterance_index=0,
        success=True,
        trace_id="t1",
        text_asr="hello",
        text_translated="olá",
    )
    return replace(result, **fields)
