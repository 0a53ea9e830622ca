"""What does a test of a store begin with?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import structs

from dragoman.core.capability import Service
from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId
from dragoman.core.lifecycle import JobState
from dragoman.core.node import Node, NodeStatus
from dragoman.store.interface import Job, Moved, Stale, Store
from dragoman.store.registry import Instance, NodeLoad, NodeSnapshot
from tests.support.builders import a_ranking, a_request, an_error

LEASE_MS = 10_000
KEEP_MS = 60_000
A, B, C = InstanceId("a"), InstanceId("b"), InstanceId("c")
J1, J2, J3 = JobId("j1"), JobId("j2"), JobId("j3")
N1, N2, N3 = NodeId("n1"), NodeId("n2"), NodeId("n3")
S1, S2 = SessionId("s1"), SessionId("s2")
WAY: dict[JobState, tuple[JobState, ...]] = {
    JobState.RESERVED: (),
    JobState.DISPATCHED: (JobState.DISPATCHED,),
    JobState.ACCEPTED: (JobState.DISPATCHED, JobState.ACCEPTED),
    JobState.RUNNING: (JobState.DISPATCHED, JobState.ACCEPTED, JobState.RUNNING),
}
"""How an attempt comes to each state."""
AT_WORK = tuple(WAY)
UNENDED = (JobState.CREATED, *AT_WORK)


def an_instance(instance_id: InstanceId = A, address: str = "10.0.0.1:9000") -> Instance:
    """A scheduler that runs."""
    return Instance(id=instance_id, address=address, started_ms=1, version="1.2.3")


def a_node(node_id: NodeId = N1, **fields: Any) -> Node:
    """What a node can do."""
    return replace(Node(id=node_id, slots=4, services=frozenset({Service.ASR, Service.NMT})), **fields)


def a_snapshot(node_id: NodeId = N1, home: InstanceId = A, **fields: Any) -> NodeSnapshot:
    """A node that is well."""
    snapshot = NodeSnapshot(
        node=a_node(node_id), home=home, status=NodeStatus.READY, used=0, load=1.5, is_overloaded=False
    )
    return structs.replace(snapshot, **fields)


def a_load(node_id: NodeId = N1, used: int = 1) -> NodeLoad:
    """A node with some work."""
    return NodeLoad(node_id, used, 50.0, is_overloaded=False)


async def bring_to(
    store: Store, state: JobState, job_id: JobId = J1, node_id: NodeId = N1, owner: InstanceId = A
) -> int:
    """Make a job in a state; answers its attempt."""
    if state is JobState.CREATED:
        await store.open_job(a_request(job_id), owner, (), LEASE_MS)
        return 0
    await store.open_job(a_request(job_id), owner, a_ranking(**{node_id: 100}), LEASE_MS)
    for step in WAY[state]:
        assert await store.advance_job(job_id, 1, node_id, step) == Moved()
    return 1


async def end(store: Store, job_id: JobId = J1, attempt: int = 1, *, release: bool = True) -> Moved | Stale:
    """End a job, at whatever node it is."""
    return await store.end_job(job_id, attempt, None, JobState.FAILED, an_error(), release=release, keep_ms=KEEP_MS)


async def the_job(store: Store, job_id: JobId = J1) -> Job:
    """The job, which is there."""
    job = await store.read_job(job_id)
    assert job is not None
    return job


async def used(store: Store, node_id: NodeId = N1) -> int:
    """How many slots of a node are taken."""
    (count,) = await store.count_slots([node_id])
    return count
