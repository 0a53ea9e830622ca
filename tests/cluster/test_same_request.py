"""What if the same is asked of several instances at once? There is one job, and one end of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dragoman.app import App, running_app
from dragoman.config.settings import Settings
from dragoman.core.ids import RequestId, SessionId, derive_job_id
from dragoman.dispatch.outcomes import Accepted, AlreadyKnown
from dragoman.protocol.codec import session_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import MissingResult, SessionInitAck, TranslationResult
from dragoman.websocket import ClientSocket, SocketClosedError
from tests.cluster.clients import Client, clients_at, introduce
from tests.cluster.fleet import fleet_of, until
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared
from tests.support.builders import a_need, a_request, a_session_init, a_speech, a_text

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)

ROUNDS = 15
REQUESTS, AT_ONCE, SESSIONS = 1000, 100, 5


class Racer:
    """One of the connections that resume a session at the same time. It asks for something as soon as it is let in."""

    def __init__(self) -> None:
        self.token = ""
        self.ends: list[Any] = []
        self.lost_by: str | None = None
        """Why it has not got the session, once it has not."""

    async def run(self, url: str, token: str, index: int, text: str) -> None:
        """Resume, ask, and listen to the end."""
        codec = session_client_codec(is_binary=False)
        socket = await ClientSocket.connect(f"{url}/ws/session")
        try:
            await socket.send(codec.encode(a_session_init(resume_token=token, terminals_received=index)))
            while True:
                match codec.decode(await socket.receive()):
                    case SessionInitAck() as ack:
                        self.token = ack.resume_token
                        await socket.send(codec.encode(a_text(text, session_id=ack.session_id, utterance_index=index)))
                    case Error(code="INVALID_SESSION"):
                        # Another one has shown that it has the next token: this one is worth nothing any more.
                        self.lost_by = "token"
                        return
                    case (TranslationResult() | MissingResult() | Error()) as end:
                        self.ends.append(end)
                    case _:
                        pass
        except SocketClosedError as closed:
            self.lost_by = f"close code {closed.code}"
        finally:
            socket.abort()


@both
async def test_a_session_that_is_resumed_on_three_instances_at_once_has_one_of_them_and_one_job(shared: Shared) -> None:
    with fleet_of(3, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with nodes_at(record, ([fleet[0].url], "n1"), ([fleet[1].url], "n2"), delay_s=0.1) as nodes:
            await introduce(fleet, nodes)
            async with clients_at(record, [fleet[0].url]) as [client]:
                pass
            token = client.token
            for index in range(ROUNDS):
                token = await _race(fleet.urls, token, client.session_id, index, record)


async def _race(urls: list[str], token: str, session_id: str, index: int, record: Record) -> str:
    """One round. Answers the token of who won."""
    racers = [Racer() for _ in urls]
    text = f"round {index}"
    tasks = [asyncio.ensure_future(racer.run(url, token, index, text)) for racer, url in zip(racers, urls, strict=True)]
    await until(lambda: [racer.lost_by for racer in racers].count(None) == 1, 10, lambda: "not all but one are gone")
    [winner] = [racer for racer in racers if racer.lost_by is None]
    await until(lambda: winner.ends, 10, lambda: "who has the session hears nothing")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert {racer.lost_by for racer in racers if racer is not winner} <= {"token", "close code 1000"}
    for racer in racers:
        assert len(racer.ends) <= 1
        for end in racer.ends:
            assert isinstance(end, TranslationResult)
            assert (end.utterance_index, end.text_translated) == (index, text.upper())
    assert record.jobs[derive_job_id(None, SessionId(session_id), RequestId(str(index)))] == 1
    return winner.token


async def test_a_thousand_requests_to_three_instances_each_are_a_thousand_jobs(shared: Shared) -> None:
    record = Record()
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(_app(shared, name)) for name in "abc"]
        urls = [f"ws://127.0.0.1:{app.port}" for app in apps]
        await until(lambda: all(len(app.parts.router.peers) == 2 for app in apps))
        placed = [([url], f"n{at}") for at, url in enumerate(urls)]
        nodes = await stack.enter_async_context(nodes_at(record, *placed, slots=40, delay_s=0.02))
        clients = await stack.enter_async_context(clients_at(record, *[[urls[0]]] * SESSIONS))
        await until(lambda: all(_knows(app, len(nodes)) for app in apps))
        for start in range(0, REQUESTS, AT_ONCE):
            numbers = range(start, start + AT_ONCE)
            await asyncio.gather(*[_ask_all(apps, record, clients[it % SESSIONS], it // SESSIONS) for it in numbers])
        await until(lambda: not record.lost, 20)
        record.assert_right()
        assert (len(record.jobs), set(record.jobs.values())) == (REQUESTS, {1})


def _app(shared: Shared, name: str) -> Any:
    phase2 = {"enabled": True, "instance_id": name, "redis": shared.settings}
    values = {
        "server": {"port": 0, "admin_port": 0},
        "scheduler": {"phase2": phase2 | {"node_snapshot": {"refresh_interval_ms": 100}, "stream_block_ms": 100}},
    }
    return running_app(Settings.model_validate(values))


def _knows(app: App, count: int) -> bool:
    return sum(entry.standing is None for entry in app.parts.dispatcher.view) == count


async def _ask_all(apps: list[App], record: Record, client: Client, index: int) -> None:
    """The same request to every instance in the same moment; its session is on the first."""
    text = f"number {index}"
    client.requests[index] = record.ask(client.session_id, index, str(index), text)
    client.requests[index].is_open = True
    session_id = SessionId(client.session_id)
    request = a_request(
        derive_job_id(None, session_id, RequestId(str(index))),
        session_id=session_id,
        request_id=RequestId(str(index)),
        utterance_index=index,
        need=a_need(services=("nmt", "tts")),
        speech=a_speech(audio=text.encode(), audio_format="text", sample_rate=0),
        accepted_ms=apps[0].parts.clock.now_ms(),
    )
    answers = await asyncio.gather(*[app.parts.dispatcher.submit(request) for app in apps])
    assert {type(answer) for answer in answers} <= {Accepted, AlreadyKnown}
    assert sum(isinstance(answer, Accepted) for answer in answers) == 1
    assert {answer.job_id for answer in answers if isinstance(answer, Accepted | AlreadyKnown)} == {request.job_id}
