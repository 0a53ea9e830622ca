"""Does a session live through lost connections and lost sessions?"""

import asyncio
import contextlib
import time

import pytest

from dragoman.client import (
    DeadlineExceededError,
    GaveUpError,
    JobCancelledError,
    PayloadTooLargeError,
    SessionLostError,
    TimedOutError,
    UnauthorizedError,
)
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import (
    ClientJobCancel,
    SessionInit,
    Utterance,
)
from tests.client.fake_scheduler import WAIT_S, FakeScheduler, Peer, event, fake_scheduler, opened, result


async def _again(scheduler: FakeScheduler, session_id: str = "s-1", token: str = "t-2") -> tuple[Peer, SessionInit]:
    """The connection that the client makes after a loss, and how it opened it."""
    peer = await scheduler.peer()
    return peer, await peer.welcome(session_id, token)


def test_a_session_cut_off_in_the_middle_of_jobs_resumes_and_each_ends_once() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            done, accepted, unknown = [await session.submit(text) for text in ("done", "accepted", "unknown")]
            asked = [await peer.expect(Utterance) for _ in range(3)]
            await peer.send(event(1), result(asked[0]))
            assert (await done.result()).recognised == "done"
            async for _ in accepted.partials():
                break
            await peer.cut()
            peer, init = await _again(scheduler)
            assert (init.resume_token, init.terminals_received) == ("t-1", 1)
            # Only what the scheduler may not have is sent again, and as the same request.
            again = await peer.expect(Utterance)
            assert (again.request_id, again.utterance_index) == (asked[2].request_id, 2)
            await peer.send(result(asked[0], "a replay of what was had"), result(asked[1]), result(again))
            await peer.send(result(again, "twice"))
            assert (await accepted.result()).recognised == "accepted"
            assert (await unknown.result()).recognised == "unknown"
            # A token is good for one resume.
            await peer.cut()
            _, init = await _again(scheduler)
            assert init.resume_token == "t-2"
            assert (await done.result()).recognised == "done"

    asyncio.run(story())


@pytest.mark.parametrize("code", [1001, 1012])
def test_a_scheduler_that_restarts_is_come_back_to(code: int) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            await peer.connection.close(code, "restart")
            scheduler.refuse_with = 503  # while it is down
            await scheduler.refused.wait()
            scheduler.refuse_with = 0
            peer, init = await _again(scheduler)
            assert init.resume_token == "t-1"
            await peer.send(result(await peer.expect(Utterance)))
            assert (await asking).recognised == "hello"

    asyncio.run(story())


def test_what_is_asked_while_the_connection_is_down_is_sent_when_it_is_back() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            await peer.cut()
            asking = asyncio.create_task(session.translate("hello"))
            peer, _ = await _again(scheduler)
            await peer.send(result(await peer.expect(Utterance)))
            assert (await asking).recognised == "hello"

    asyncio.run(story())


@pytest.mark.parametrize("code", ["INVALID_SESSION", "SESSION_CLOSED"])
def test_a_lost_session_is_opened_anew_and_the_unfinished_asked_for_again_in_order(code: str) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            texts = ("done", "one", "two", "withdrawn")
            done, one, two, withdrawn = [await session.submit(text) for text in texts]
            asked = [await peer.expect(Utterance) for _ in texts]
            await peer.send(result(asked[0]), event(1))
            async for _ in one.partials():
                break
            await withdrawn.cancel()
            await peer.cut()
            await (await scheduler.peer()).refuse(code)
            peer, init = await _again(scheduler, session_id="s-2")
            assert (init.resume_token, init.terminals_received) == (None, None)
            again = [await peer.expect(Utterance) for _ in range(2)]
            assert [(item.session_id, item.utterance_index) for item in again] == [("s-2", 0), ("s-2", 1)]
            assert [item.request_id for item in again] == [one.request_id, two.request_id]
            await peer.send(result(again[1]), result(again[0]))
            assert (await one.result()).recognised == "one"
            assert (await two.result()).recognised == "two"
            assert (session.id, done.is_done) == ("s-2", True)
            with pytest.raises(JobCancelledError):
                await withdrawn.result()

    asyncio.run(story())


def test_a_session_that_the_scheduler_forgets_while_connected_is_opened_anew() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            await peer.send(Error(code="INVALID_SESSION", message="never heard of it"))
            peer, init = await _again(scheduler, session_id="s-2")
            assert init.resume_token is None
            await peer.send(result(await peer.expect(Utterance)))
            await asking

    asyncio.run(story())


def test_a_lost_session_is_the_end_if_the_program_wants_no_other() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, reopen=False) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            await peer.cut()
            await (await scheduler.peer()).refuse("INVALID_SESSION")
            with pytest.raises(SessionLostError, match="s-1"):
                await asking
            with pytest.raises(SessionLostError):
                await session.translate("more")

    asyncio.run(story())


def test_a_connection_that_does_not_come_back_is_given_up() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler, reconnect_s=0.2) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            scheduler.refuse_with = 503
            await peer.cut()
            with pytest.raises(GaveUpError, match=r"did not come back within 0.2 s: .*503"):
                await asking
            with pytest.raises(GaveUpError):
                await session.translate("more")

    asyncio.run(story())


def test_a_token_that_is_no_longer_good_ends_the_session_at_once() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            asking = asyncio.create_task(session.translate("hello"))
            await peer.expect(Utterance)
            scheduler.refuse_with = 401
            await peer.cut()
            with pytest.raises(UnauthorizedError):
                await asking

    asyncio.run(story())


def test_time_outs_and_deadlines_hold_while_the_connection_is_down() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            scheduler.refuse_with = 503
            await peer.cut()
            await scheduler.refused.wait()
            late = await session.submit("late", deadline_s=0.01)
            with pytest.raises(TimedOutError, match=r"could not be sent within 0.1 s"):
                await session.translate("hello", timeout_s=0.1)
            scheduler.refuse_with = 0
            await _again(scheduler)
            with pytest.raises(DeadlineExceededError, match=r"not sent within the 0.01 s"):
                await late.result()

    asyncio.run(story())


def test_what_is_withdrawn_while_the_connection_is_down_is_not_asked_for() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            sent, other = await session.submit("sent"), await session.submit("other")
            asked = [await peer.expect(Utterance) for _ in range(2)]
            await peer.cut()
            unsent = await session.submit("unsent")
            await sent.cancel()
            await unsent.cancel()
            peer, _ = await _again(scheduler)
            await peer.send(result(await peer.expect(Utterance)))
            assert (await other.result()).recognised == "other"
            assert [item.request_id for item in peer.seen if isinstance(item, Utterance)] == [asked[1].request_id]
            assert any(isinstance(item, ClientJobCancel) for item in peer.seen)
            for utterance in (sent, unsent):
                with pytest.raises(JobCancelledError):
                    await utterance.result()

    asyncio.run(story())


def test_a_message_that_is_too_long_for_the_scheduler_does_not_take_the_others_with_it() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            long, short = await session.submit("x" * 5000), await session.submit("short")
            for _ in range(2):
                await peer.expect(Utterance)
            await peer.connection.close(1009, "message too big")
            peer, _ = await _again(scheduler)
            await peer.send(result(await peer.expect(Utterance)))
            assert (await short.result()).recognised == "short"
            with pytest.raises(PayloadTooLargeError, match="5000 bytes"):
                await long.result()

    asyncio.run(story())


def test_leaving_the_block_while_disconnected_does_not_wait_for_the_scheduler() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            async with opened(scheduler) as (_, peer):
                scheduler.refuse_with = 503
                await peer.cut()
                await scheduler.refused.wait()
                began = time.monotonic()
            assert time.monotonic() - began < 1

    asyncio.run(story())


def test_connections_lost_again_and_again_lose_and_double_nothing() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler, opened(scheduler) as (session, peer):
            texts = [f"text {number}" for number in range(40)]
            asking = asyncio.gather(*map(session.translate, texts))
            answered: dict[str, int] = {}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    while len(answered) < len(texts):
                        for _ in range(15):
                            asked = await peer.expect(Utterance)
                            assert asked.request_id is not None
                            answered[asked.request_id] = answered.get(asked.request_id, 0) + 1
                            await peer.send(result(asked))
                            if len(answered) == len(texts):
                                break
                        else:
                            await peer.cut()
                            peer, _ = await _again(scheduler)
            assert [got.recognised for got in await asking] == texts

    asyncio.run(story())
