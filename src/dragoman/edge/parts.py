"""What do the connections work with? The parts of one instance, wired by app.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dragoman.clock import Clock
from dragoman.cluster.directory import Directory
from dragoman.cluster.membership import Membership
from dragoman.cluster.probes import Probes
from dragoman.config.settings import SchedulerSettings, ServerSettings
from dragoman.core.ids import InstanceId, NodeId
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.handover import Handover
from dragoman.dispatch.rescue import Rescue
from dragoman.dispatch.results import Results
from dragoman.edge.outbound import Outbound
from dragoman.protocol.segmentation import Segmenter
from dragoman.routing.errands import Errands
from dragoman.routing.router import Router
from dragoman.routing.session import Session
from dragoman.store.interface import Place, SessionRecord, Store
from dragoman.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from dragoman.edge.node_connection import NodeConnection
    from dragoman.edge.session_connection import SessionConnection


@dataclass(slots=True)
class OpenConnections:
    """The sockets that are open now."""

    sessions: set[SessionConnection] = field(default_factory=set)
    nodes: set[NodeConnection] = field(default_factory=set)
    by_node: dict[NodeId, NodeConnection] = field(default_factory=dict)
    """Registered nodes only."""
    streaming: set[SessionConnection] = field(default_factory=set)
    """Sessions in the middle of an utterance in chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a connection may need to call."""

    instance_id: InstanceId
    server: ServerSettings
    scheduler: SchedulerSettings
    clock: Clock
    store: Store
    router: Router
    membership: Membership
    dispatcher: Dispatcher
    results: Results
    rescue: Rescue
    metrics: Metrics
    errands: Errands
    outbound: Outbound
    directory: Directory
    probes: Probes
    handover: Handover
    owner_ttl_ms: int
    """How long an instance is believed to hold a node or a session without saying so again."""
    open: OpenConnections = field(default_factory=OpenConnections)


def make_session(
    scheduler: SchedulerSettings, server: ServerSettings, record: SessionRecord, place: Place, digest: bytes
) -> Session:
    """The state of a session, as this instance begins to hold it."""
    segmentation = scheduler.web_task_segmentation
    segmenter = Segmenter(pause_ms=segmentation.pause_ms, max_duration_ms=segmentation.max_duration_ms)
    segmenter.go_on(place.next_cut, place.last_seq, b"", 0)
    return Session(
        record,
        gap_timeout_ms=scheduler.results.gap_timeout_ms,
        segmenter=segmenter,
        bytes_max=server.send_queue_bytes,
        place=place,
        token_digest=digest,
    )
