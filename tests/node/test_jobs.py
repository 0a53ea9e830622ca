"""What does a node answer to the orders of a scheduler?"""

import asyncio
import threading
from typing import Any

import pytest

from dragoman.node import Audio, ErrorCode, Node, ServiceError, Services, TimeLimits
from dragoman.protocol.node_messages import (
    JobAck,
    JobResult,
    JobStarted,
    NodeAsrPartial,
    NodeHeartbeat,
    NodeJobCancel,
)
from tests.node.fake_scheduler import Peer, assign, registered, speech


class Gate:
    """A service that waits until the test lets it go on, and counts its calls."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered = asyncio.Queue[str]()
        self.left: list[str] = []

    async def translate(self, text: str, src: str, tgt: str) -> str:
        self.entered.put_nowait(text)
        try:
            await self.open.wait()
        finally:
            self.left.append(text)
        return f"[{tgt}] {text}"

    def node(self, **options: Any) -> Node:
        services = Services()
        services.translates(("en", "pt"))(self.translate)
        return Node(services, **options)


async def _result(peer: Peer, job_id: str = "job-1") -> JobResult:
    return await peer.expect(JobResult, lambda result: result.job_id == job_id)


def _failure(result: JobResult) -> tuple[str, str]:
    assert not result.success
    assert result.error is not None
    return result.error.code, result.error.message


def test_a_job_is_acknowledged_started_heard_and_answered_in_that_order() -> None:
    services = Services()

    @services.recognises("en")
    async def recognise(audio: Audio) -> str:
        assert (len(audio.data), audio.sample_rate, audio.language) == (32_000, 16_000, "en-US")
        return "good morning"

    @services.translates(("en", "pt"))
    async def translate(text: str, src: str, tgt: str) -> str:
        return {"good morning": f"bom dia {src} {tgt}"}[text]

    @services.speaks("pt")
    async def speak(text: str, language: str) -> Audio:
        return Audio(data=text.encode() * 2, sample_rate=8000)

    async def story() -> None:
        async with registered(Node(services)) as peer:
            await peer.send(speech(src_lang="en-US", tgt_lang="pt-BR", enable_streaming_asr=True, group_id="g"))
            result = await _result(peer)
            kinds = [type(message) for message in peer.seen if not isinstance(message, NodeHeartbeat)][1:]
            assert kinds == [JobAck, JobStarted, NodeAsrPartial, JobResult]
            assert (result.success, result.text_asr, result.text_translated) == (
                True,
                "good morning",
                "bom dia en-US pt-BR",
            )
            assert (result.attempt_id, result.session_id, result.trace_id, result.group_id) == (
                1,
                "session-1",
                "trace-1",
                "g",
            )
            assert result.tts_format == "wav"
            assert (result.tts_audio or b"")[:4] == b"RIFF"
            assert result.service_timings is not None
            assert set(result.service_timings) == {"asr_ms", "nmt_ms", "tts_ms", "total_ms"}
            assert result.processing_time_ms == result.service_timings["total_ms"]
            assert result.node_completed_at_ms
            partial = next(message for message in peer.seen if isinstance(message, NodeAsrPartial))
            assert (partial.text, partial.is_final) == ("good morning", True)

    asyncio.run(story())


def test_more_jobs_than_slots_are_refused_and_a_freed_slot_is_used_again() -> None:
    async def story() -> None:
        gate = Gate()
        async with registered(gate.node(slots=2)) as peer:
            for job in ("job-1", "job-2", "job-3"):
                await peer.send(assign(job))
            code, message = _failure(await _result(peer, "job-3"))
            assert (code, message) == ("NODE_OVERLOADED", "all 2 slots are in use")
            gate.open.set()
            assert (await _result(peer, "job-1")).success
            await peer.send(assign("job-4"))
            assert (await _result(peer, "job-4")).success

    asyncio.run(story())


def test_the_same_attempt_is_run_once_and_answered_again_after_its_end() -> None:
    async def story() -> None:
        gate = Gate()
        async with registered(gate.node(slots=2)) as peer:
            await peer.send(assign())
            await peer.send(assign())
            await peer.expect(JobAck)
            await peer.expect(JobAck)
            gate.open.set()
            first = await _result(peer)
            await peer.send(assign())
            assert await _result(peer) == first
            assert gate.left == ["hello"]

    asyncio.run(story())


def test_a_newer_attempt_takes_the_place_of_an_older_one_which_is_not_answered() -> None:
    async def story() -> None:
        gate = Gate()
        async with registered(gate.node()) as peer:
            await peer.send(assign(attempt_id=1))
            await gate.entered.get()
            await peer.send(assign(attempt_id=2))
            await gate.entered.get()
            gate.open.set()
            await _result(peer)
            assert [message.attempt_id for message in peer.seen if isinstance(message, JobResult)] == [2]

    asyncio.run(story())


def test_a_withdrawn_job_is_stopped_and_answered() -> None:
    async def story() -> None:
        gate = Gate()
        async with registered(gate.node()) as peer:
            await peer.send(assign())
            await gate.entered.get()
            await peer.send(NodeJobCancel(job_id="job-1"))
            assert _failure(await _result(peer))[0] == "JOB_CANCELLED"
            assert gate.left == ["hello"]
            # Also one that has not begun yet, and one that nobody knows.
            await peer.send(assign("job-2"))
            await peer.send(NodeJobCancel(job_id="job-2"))
            await peer.send(NodeJobCancel(job_id="job-unknown"))
            assert _failure(await _result(peer, "job-2"))[0] == "JOB_CANCELLED"

    asyncio.run(story())


def test_a_blocking_function_does_not_stop_the_heartbeats() -> None:
    free = threading.Event()
    services = Services()

    @services.translates(("en", "pt"))
    def translate(text: str, src: str, tgt: str) -> str:
        assert free.wait(10)
        return threading.current_thread().name

    async def story() -> None:
        async with registered(Node(services, heartbeat_s=0.01)) as peer:
            await peer.send(assign())
            for _ in range(5):
                beat = await peer.expect(NodeHeartbeat, lambda beat: beat.running_job_ids == ["job-1"])
                assert beat.resource_usage.running_jobs == 1
            free.set()
            assert "dragoman-service" in ((await _result(peer)).text_translated or "")

    asyncio.run(story())


def test_a_call_that_takes_too_long_fails_by_its_services_code_and_keeps_its_slot_until_it_returns() -> None:
    free = threading.Event()
    services = Services()

    @services.translates(("en", "pt"), service_id="nmt-slow")
    def translate(text: str, src: str, tgt: str) -> str:
        free.wait(10)
        return text

    async def story() -> None:
        node = Node(services, limits=TimeLimits(nmt_s=0.02), heartbeat_s=0.01)
        async with registered(node) as peer:
            await peer.send(assign())
            assert _failure(await _result(peer)) == ("NMT_TIMEOUT", "nmt-slow did not answer within 0.02 s")
            await peer.send(assign("job-2"))
            assert _failure(await _result(peer, "job-2"))[0] == "NODE_OVERLOADED"
            free.set()
            await peer.expect(NodeHeartbeat, lambda beat: beat.resource_usage.running_jobs == 0)
            await peer.send(assign("job-3"))
            assert (await _result(peer, "job-3")).success

    asyncio.run(story())


def test_a_result_that_makes_no_message_is_answered_as_a_failure() -> None:
    services = Services()

    @services.translates(("en", "pt"))
    async def translate(text: str, src: str, tgt: str) -> str:
        match text:
            case "half":
                return "half of a character: \ud83d"
            case "long":
                return "x" * 2000
            case "odd":
                raise ServiceError(ErrorCode.MODEL_NOT_AVAILABLE, "odd details", {"what": object()})
            case _:
                return "bem"

    async def story() -> None:
        async with registered(Node(services, message_bytes_max=1000)) as peer:
            expected = {
                "half": ("INTERNAL_ERROR", "the result fits into no message"),
                "odd": ("INTERNAL_ERROR", "the result fits into no message"),
            }
            for text, failure in expected.items():
                await peer.send(assign(text, audio=text.encode()))
                assert _failure(await _result(peer, text)) == failure
            await peer.send(assign("long", audio=b"long"))
            code, message = _failure(await _result(peer, "long"))
            assert code == "PAYLOAD_TOO_LARGE"
            assert message.endswith("wanted 1000 at most")
            await peer.send(assign("fine", audio=b"fine"))
            assert (await _result(peer, "fine")).text_translated == "bem"

    asyncio.run(story())


def test_a_function_that_fails_fails_its_job_only_and_its_words_stay_here(capsys: pytest.CaptureFixture[str]) -> None:
    services = Services()

    @services.translates(("en", "pt"), service_id="nmt-weak")
    def translate(text: str, src: str, tgt: str) -> str:
        match text:
            case "stop":
                raise StopIteration
            case "cancel":
                raise asyncio.CancelledError
            case "number":
                return 7  # type: ignore[return-value]
            case "fine":
                return "bem"
            case _:
                raise ValueError(f"cannot translate {text}")

    async def story() -> None:
        async with registered(Node(services, slots=1)) as peer:
            expected = {
                "a secret": "nmt-weak failed with ValueError",
                "stop": "nmt-weak failed with RuntimeError",
                "cancel": "a service was cancelled from within",
                "number": "nmt-weak returned int; wanted str",
            }
            for text, message in expected.items():
                await peer.send(assign(text, audio=text.encode()))
                assert _failure(await _result(peer, text)) == ("INTERNAL_ERROR", message)
            await peer.send(assign("fine", audio=b"fine"))
            assert (await _result(peer, "fine")).text_translated == "bem"

    asyncio.run(story())
    written = capsys.readouterr()
    assert "cannot translate" not in written.out + written.err
