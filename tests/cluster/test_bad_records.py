"""What if there is something in the store that does not belong there? It stays alone."""

from __future__ import annotations

import msgspec
import pytest

from dragoman.core.ids import InstanceId, RequestId, SessionId, derive_job_id
from dragoman.protocol.fields import Error
from dragoman.protocol.letters import TellSession, write_letter, write_note
from dragoman.protocol.session_messages import SessionAsrPartial
from tests.cluster.clients import clients_at, introduce
from tests.cluster.fleet import fleet_of, until
from tests.cluster.record import Record
from tests.cluster.shared import Shared
from tests.cluster.test_across import a_scene

pytestmark = pytest.mark.slow

GARBAGE = b"\x00\xff garbage \x93"


def _dead_letters(shared: Shared, instance_id: str) -> list[dict[bytes, bytes]]:
    entries = shared.call("XRANGE", shared.dead_letters(instance_id), "-", "+")
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]


@pytest.mark.parametrize("field", ["letter", "something else"])
async def test_garbage_in_an_inbox_is_put_aside_with_its_reason_and_the_inbox_goes_on(
    shared: Shared, field: str
) -> None:
    async with a_scene(shared) as scene:
        scene.expects_dead_letters = True
        for instance in scene.fleet.instances:
            instance.expects_faults = True
            shared.call("XADD", shared.inbox(instance.name), "*", field, GARBAGE)
        await scene.client.asks("hello")
        for instance in scene.fleet.instances:
            await until(lambda: _dead_letters(shared, instance.name))  # noqa: B023
            [dead] = _dead_letters(shared, instance.name)
            assert dead[b"payload"] == (GARBAGE if field == "letter" else b"")
            assert dead[b"reason"].startswith(b"not a letter" if field == "letter" else b"no letter in it")
        scene.record.assert_right()


async def test_of_a_letter_with_a_bad_note_the_rest_is_done(shared: Shared) -> None:
    async with a_scene(shared) as scene:
        scene.expects_dead_letters = True
        scene.fleet[1].expects_faults = True
        session_id = SessionId(scene.client.session_id)
        partial = SessionAsrPartial(
            session_id=session_id, utterance_index=0, job_id="j", text="heard", is_final=False, trace_id="t"
        )
        good = write_note(TellSession(session_id, partial))
        bad = msgspec.msgpack.encode(["no_such_kind", 1])
        shared.call("XADD", shared.inbox("b"), "*", "letter", write_letter(InstanceId("a"), [good, bad, good]))
        await until(lambda: len(scene.client.partials) == 2)
        await until(lambda: _dead_letters(shared, "b"))
        assert [dead[b"payload"] for dead in _dead_letters(shared, "b")] == [bad]
        await scene.client.asks("hello")
        scene.record.assert_right()


async def test_an_inbox_that_is_no_stream_is_told_and_all_is_well_when_it_is_gone(shared: Shared) -> None:
    async with a_scene(shared) as scene:
        scene.expects_dead_letters = True
        for instance in scene.fleet.instances:
            instance.expects_faults = True
        shared.call("DEL", shared.inbox("a"))
        shared.call("SET", shared.inbox("a"), "something", "PX", 60_000)
        request = await scene.client.ask("it cannot get there")
        await scene.fleet[0].says("WRONGTYPE")
        shared.call("DEL", shared.inbox("a"))
        await scene.client.hears(request, 10)
        await scene.client.asks("hello")
        assert scene.fleet[0].exit_code is None
        scene.record.assert_right(refusals=frozenset({"NO_AVAILABLE_NODE", "SCHEDULER_DEPENDENCY_DOWN"}))


async def test_a_job_that_cannot_be_read_is_refused_and_harms_no_other(shared: Shared) -> None:
    async with a_scene(shared) as scene:
        session_id = SessionId(scene.client.session_id)
        job = derive_job_id(None, session_id, RequestId("poisoned"))
        key = shared.key(f"v1:jobs:{{job:{job}}}")
        shared.call("RPUSH", key, "something")
        shared.call("PEXPIRE", key, 60_000)
        request = await scene.client.ask("hello", request_id="poisoned")
        await until(lambda: request.refusals, 5)
        assert request.refusals[0] == "SCHEDULER_DEPENDENCY_DOWN"
        await scene.client.asks("another")
        shared.call("DEL", key)
        await scene.client.hears(request)
        assert not isinstance(request.end, Error)
        assert scene.record.wrongs == []


async def test_instances_and_nodes_that_are_none_harm_nobody(shared: Shared) -> None:
    for name in ("schedulers:presence:ghost", "v1:nodes:snapshot:{node:ghost}", "nodes:owner:{node:ghost}", "others"):
        shared.call("SET", shared.key(name), GARBAGE, "PX", 60_000)
    for name in ("schedulers:all", "v1:nodes:all"):
        shared.call("SADD", shared.key(name), "ghost", GARBAGE)
    shared.call("XADD", shared.key("v1:nodes:changes"), "*", "nodes", GARBAGE, "loads", GARBAGE)
    async with a_scene(shared) as scene:
        shared.call("XADD", shared.key("v1:nodes:changes"), "*", "x", "y")
        await scene.client.asks("hello")
        scene.record.assert_right()


async def test_an_instance_whose_presence_was_overwritten_with_garbage_goes_on(shared: Shared) -> None:
    with fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        shared.call("SET", shared.key("schedulers:presence:a"), GARBAGE, "PX", 60_000)
        await fleet[0].says("renewal")
        await until(lambda: shared.call("GET", shared.key("schedulers:presence:a")) != GARBAGE)
        assert fleet[0].exit_code is None
        record = Record()
        async with clients_at(record, [fleet[0].url]):
            pass


async def test_slots_that_are_no_sorted_set_keep_a_node_from_work_and_nobody_else(shared: Shared) -> None:
    async with a_scene(shared) as scene:
        shared.call("DEL", shared.slots("n1"))
        shared.call("SET", shared.slots("n1"), "something", "PX", 60_000)
        request = await scene.client.ask("it cannot be reserved")
        await scene.fleet[1].says("job_id=")
        shared.call("DEL", shared.slots("n1"))
        await scene.client.hears(request, 12)
        await introduce(scene.fleet, [scene.node])
        scene.record.assert_right(refusals=frozenset({"NO_AVAILABLE_NODE", "SCHEDULER_DEPENDENCY_DOWN"}))
