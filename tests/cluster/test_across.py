"""Does a session on one instance use the nodes of another as if they were its own?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import JobFailure, NodeAsrPartial
from dragoman.protocol.session_messages import ClientJobCancel, UiEventKind
from tests.cluster.clients import Client, clients_at, introduce
from tests.cluster.fleet import Fleet, fleet_of, until
from tests.cluster.nodes import ScriptedNode, nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow
both = pytest.mark.parametrize("shared", ["single", "cluster"], indirect=True)


@dataclass
class Scene:
    """A node on the first instance, a client on the second."""

    fleet: Fleet
    record: Record
    node: ScriptedNode
    client: Client
    expects_dead_letters: bool = False


@asynccontextmanager
async def a_scene(shared: Shared, *, delay_s: float = 0.05) -> AsyncIterator[Scene]:
    """The two of them, known to each other. At the end no letter is left, and nothing went wrong."""
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with (
            nodes_at(record, ([fleet[0].url], "n1")) as [node],
            clients_at(record, [fleet[1].url]) as [client],
        ):
            await introduce(fleet, [node])
            node.given.clear()
            node.delay_s = delay_s
            scene = Scene(fleet, record, node, client)
            yield scene
            for instance in fleet.instances:
                await until(lambda: shared.call("XLEN", shared.inbox(instance.name)) == 0, 5)  # noqa: B023
                assert shared.call("XPENDING", shared.inbox(instance.name), "scheduler")[0] == 0
                assert scene.expects_dead_letters or shared.call("EXISTS", shared.dead_letters(instance.name)) == 0
            assert record.wrongs == []


@both
async def test_a_job_goes_to_the_node_of_another_instance_and_its_result_comes_back(shared: Shared) -> None:
    async with a_scene(shared, delay_s=0.3) as scene:
        request = await scene.client.asks("hello")
        [job] = scene.node.given
        assert (job.session_id, job.attempt_id, job.audio) == (scene.client.session_id, 1, b"hello")
        assert [event.event for event in scene.client.events if event.job_id == job.job_id][-1:] == [
            UiEventKind.NODE_ACCEPTED
        ]
        assert request.refusals == []
        scene.record.assert_right()


@both
async def test_what_the_node_recognises_and_a_withdrawal_find_their_way(shared: Shared) -> None:
    async with a_scene(shared, delay_s=8) as scene:
        request = await scene.client.ask("a long story")
        await until(lambda: scene.node.given)
        [job] = scene.node.given
        about = {key: value for key, value in scene.node.about(job).items() if key != "attempt_id"}
        await scene.node.say(NodeAsrPartial(**about, utterance_index=0, text="a long", is_final=False))
        await until(lambda: scene.client.partials)
        assert scene.client.partials[0].text == "a long"
        await scene.client.say(ClientJobCancel(job_id=job.job_id))
        await scene.client.hears(request, 3)
        assert isinstance(request.end, Error)
        assert request.end.code == "JOB_CANCELLED"
        await until(lambda: scene.node.cancelled == [job.job_id])
        await until(lambda: shared.call("ZCARD", shared.slots("n1")) == 0)


@pytest.mark.parametrize(
    ("code", "retryable"), [("INTERNAL_ERROR", True), ("BAD_AUDIO", False)], ids=["passing", "lasting"]
)
async def test_a_node_of_another_instance_that_fails_at_a_job_says_why(
    shared: Shared, code: str, *, retryable: bool
) -> None:
    async with a_scene(shared) as scene:
        scene.node.failure = JobFailure(code=code, message="it went wrong")
        request = await scene.client.asks("hello")
        assert isinstance(request.end, Error)
        assert (request.end.code, request.end.message) == (code, "it went wrong")
        assert request.end.details is not None
        assert (request.end.details["retryable"], request.end.details["node_id"]) == (retryable, "n1")


async def test_a_node_of_another_instance_that_refuses_a_job_loses_it_to_a_free_one(shared: Shared) -> None:
    async with a_scene(shared) as scene, nodes_at(scene.record, ([scene.fleet[0].url], "n2")) as [other]:
        await introduce(scene.fleet, [other])
        scene.node.failure = JobFailure(code="NODE_OVERLOADED", message="not now")
        requests = [await scene.client.asks(f"number {number}", preferred_node_id="n1") for number in range(3)]
        assert scene.node.given
        assert {job.session_id for job in other.given} >= {scene.client.session_id}
        assert all(not isinstance(request.end, Error) for request in requests)


@both
async def test_a_job_whose_node_is_lost_by_another_instance_is_elsewhere_within_a_second(shared: Shared) -> None:
    async with a_scene(shared) as scene:
        scene.node.is_silent = True
        request = await scene.client.ask("hello")
        await until(lambda: scene.node.given)
        async with nodes_at(scene.record, ([scene.fleet[0].url], "n2")) as [other]:
            await introduce(scene.fleet, [other])
            scene.node.urls = []
            lost_s = scene.record.now_s()
            scene.node.drop()
            await scene.client.hears(request)
            assert request.ended_s - lost_s < 1, "another node did it at once"
            assert [job.attempt_id for job in other.given if job.session_id == scene.client.session_id] == [2]
