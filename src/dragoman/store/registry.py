"""What do the instances tell each other of themselves and of their nodes?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from msgspec import Struct

from dragoman.core.ids import InstanceId, NodeId, SessionId
from dragoman.core.node import Node, NodeStatus


class Instance(Struct, frozen=True, kw_only=True):
    """One running scheduler, as it announces itself."""

    id: InstanceId
    address: str
    started_ms: int
    """By its own wall clock, for people."""
    version: str


class Renewal(StrEnum):
    """What came of an instance saying that it lives."""

    RENEWED = "renewed"
    RETURNED = "returned"
    """The store knew nothing of it any more: it was thought dead, or the store has lost what it had."""
    TAKEN = "taken"
    """Another instance has its id by now."""


class NodeSnapshot(Struct, frozen=True, kw_only=True):
    """What the other instances need to know of a node."""

    node: Node
    home: InstanceId
    """Who has its connection."""
    status: NodeStatus
    used: int
    load: float
    """The busiest of its resources, in percent."""
    is_overloaded: bool
    unavailable: tuple[tuple[str, int], ...] = ()
    """Services that it said it cannot do after all, and for how many more milliseconds."""


class NodeLoad(Struct, frozen=True, array_like=True):
    """How busy a node is: what changes all the time."""

    node_id: NodeId
    used: int
    load: float
    is_overloaded: bool


class Changes(Struct, frozen=True, kw_only=True):
    """What has changed since the last reading."""

    cursor: str
    """Where to go on the next time."""
    nodes: tuple[NodeSnapshot, ...]
    gone: tuple[NodeId, ...]
    """Nodes that nobody vouches for any more."""
    loads: tuple[NodeLoad, ...]
    is_complete: bool
    """Whether `nodes` is every node there is: the reader had missed changes, or is new."""


class PoolRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pool of the plan, as it is shown to who reads along."""

    name: str
    languages: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    target: str | None = None
    """Of a mixed pool."""
    services: tuple[str, ...] = ()


class PoolPlan(Struct, frozen=True, kw_only=True):
    """The pools now in force."""

    version: int
    """One more for each plan that differs from the one before."""
    pools: tuple[PoolRecord, ...]


class PoolChange(NamedTuple):
    """Nodes that joined a pool, and nodes that left it."""

    pool: str
    joined: tuple[NodeId, ...]
    left: tuple[NodeId, ...]


class Registry(Protocol):
    """Who is there: instances, nodes, and which instance holds what."""

    async def join(self, instance: Instance, ttl_ms: int) -> bool:
        """Announce an instance. False: somebody with the same id is alive."""
        ...

    async def renew(self, instance: Instance, ttl_ms: int) -> Renewal:
        """Say that the instance lives."""
        ...

    async def leave(self, instance_id: InstanceId) -> None:
        """The instance stops in good order, and leaves nothing behind that anybody must see to."""
        ...

    async def instances(self) -> tuple[tuple[Instance | None, InstanceId], ...]:
        """Every instance that was announced, with what it says of itself while it lives; None: it does not."""
        ...

    async def is_alive(self, instance_id: InstanceId) -> bool:
        """Whether an instance lives, as of now."""
        ...

    async def claim_estate(self, dead: InstanceId, by: InstanceId, lease_ms: int) -> bool:
        """Whether `by` sees to what a dead instance left, for that long. One does at a time."""
        ...

    async def sessions_of(self, instance_id: InstanceId) -> tuple[SessionId, ...]:
        """The sessions that an instance held."""
        ...

    async def close_estate(self, dead: InstanceId) -> None:
        """Nothing is left of a dead instance."""
        ...

    # --- who holds a node

    async def claim_node(
        self, node_id: NodeId, owner: InstanceId, displaced: InstanceId | None, ttl_ms: int
    ) -> InstanceId | None:
        """Hold a node unless another instance does, which is answered then.

        `displaced` may be taken from: it is known to have lost the node.
        """
        ...

    async def release_node(self, node_id: NodeId, owner: InstanceId) -> None:
        """The node's connection is gone. A newer owner's claim stays."""
        ...

    async def node_owner(self, node_id: NodeId) -> InstanceId | None:
        """Who holds a node."""
        ...

    def renew_owners(
        self, owner: InstanceId, nodes: Sequence[NodeId], sessions: Sequence[SessionId], ttl_ms: int, keep_ms: int
    ) -> None:
        """Go on holding these. `keep_ms` is how long a session is kept beyond that."""
        ...

    # --- what is known of nodes

    async def publish(
        self, owner: InstanceId, nodes: Sequence[NodeSnapshot], loads: Sequence[NodeLoad], ttl_ms: int
    ) -> None:
        """Tell the others of nodes that changed, and of how busy nodes are. Only the node's owner is believed."""
        ...

    async def changes(self, cursor: str | None) -> Changes:
        """What was published since; None: everything."""
        ...

    async def prune_nodes(self, older_ms: int) -> int:
        """Forget nodes that nobody has vouched for in so long. Answers how many."""
        ...

    # --- what is shown of pools

    async def publish_pools(
        self, plan: tuple[PoolRecord, ...] | None, changes: Sequence[PoolChange], ttl_ms: int, *, renew: bool
    ) -> None:
        """Show the pools in force, if they are given, and who joined and left them. `renew` keeps all of these."""
        ...

    async def pool_plan(self) -> PoolPlan | None:
        """The pools that are shown to be in force."""
        ...

    async def pool_members(self, pool: str) -> frozenset[NodeId]:
        """The nodes that are shown to be in a pool."""
        ...

    # --- whether the store can be used

    @property
    def is_up(self) -> bool:
        """Whether it can be used now."""
        ...

    @property
    def failures(self) -> Mapping[str, int]:
        """What went wrong with it so far, by kind."""
        ...

    def on_return(self, callback: Callable[[], None]) -> None:
        """Call back whenever it can be used again after it could not."""
        ...
