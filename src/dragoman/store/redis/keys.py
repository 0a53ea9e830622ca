"""What are things called on the server?

Keys that one script touches share a hash tag, the part in braces, so that a Redis Cluster keeps them on one server. The
slots of all nodes share one, so that one call tries a whole ranking (docs/decisions/0011).
"""

from __future__ import annotations

from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId


class Keys:
    """The keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        first = prefix.encode()
        self.instances = first + b":schedulers:all"
        self.nodes = first + b":v1:nodes:all"
        self.nodes_seen = first + b":v1:nodes:last_seen"
        self.changes = first + b":v1:nodes:changes"
        self.due = first + b":v1:slots:{slots}:due"
        self.born = first + b":v1:store:born"
        self.pool_plan = first + b":v1:phase3:pools:config"
        self._slots = first + b":v1:slots:{slots}:node:"
        self._over = first + b":v1:slots:{slots}:over:"
        self._job = first + b":v1:jobs:{job:"
        self._session = first + b":v1:sessions:{session:"
        self._session_owner = first + b":sessions:owner:{session:"
        self._first = first

    def job(self, job_id: JobId) -> bytes:
        """A hash: the job."""
        return self._job + job_id.encode("utf-8", "surrogatepass") + b"}"

    def slots(self, node_id: NodeId) -> bytes:
        """A sorted set: who holds a slot of a node, by deadline."""
        return self._slots + node_id.encode("utf-8", "surrogatepass")

    def over(self, node_id: NodeId) -> bytes:
        """A sorted set: which of these belong to attempts that are over, by since when."""
        return self._over + node_id.encode("utf-8", "surrogatepass")

    def session(self, session_id: SessionId) -> bytes:
        """A hash: the session and what it is owed."""
        return self._session + session_id.encode("utf-8", "surrogatepass") + b"}"

    def session_owner(self, session_id: SessionId) -> bytes:
        """A string: which instance holds a session."""
        return self._session_owner + session_id.encode("utf-8", "surrogatepass") + b"}"

    def presence(self, instance_id: InstanceId) -> bytes:
        """A string: an instance that lives."""
        return self._of(b":schedulers:presence:", instance_id)

    def estate(self, instance_id: InstanceId) -> bytes:
        """A string: who sees to what a dead instance left."""
        return self._tagged(b":v1:schedulers:estate:{instance:", instance_id)

    def sessions_of(self, instance_id: InstanceId) -> bytes:
        """A set: the sessions that an instance holds."""
        return self._tagged(b":v1:sessions:of:{instance:", instance_id)

    def inbox(self, instance_id: InstanceId) -> bytes:
        """A stream: letters to an instance."""
        return self._tagged(b":streams:{instance:", instance_id) + b":inbox"

    def closed(self, instance_id: InstanceId) -> bytes:
        """A string, there when nobody will read the inbox of an instance any more."""
        return self._tagged(b":streams:{instance:", instance_id) + b":closed"

    def dead_letters(self, instance_id: InstanceId) -> bytes:
        """A stream: letters to an instance that could not be delivered."""
        return self._tagged(b":streams:{instance:", instance_id) + b":dlq"

    def node_owner(self, node_id: NodeId) -> bytes:
        """A string: which instance has a node's connection."""
        return self._tagged(b":nodes:owner:{node:", node_id)

    def snapshot(self, node_id: NodeId) -> bytes:
        """A string: what selection needs to know of a node."""
        return self._tagged(b":v1:nodes:snapshot:{node:", node_id)

    def node_presence(self, node_id: NodeId) -> bytes:
        """A string: a node that is there."""
        return self._tagged(b":v1:nodes:presence:{node:", node_id)

    def capabilities(self, node_id: NodeId) -> bytes:
        """A hash: which services of a node are ready."""
        return self._tagged(b":node:{node:", node_id) + b":capabilities"

    def pool_members(self, pool: str) -> bytes:
        """A set: the nodes that are in a pool."""
        return self._tagged(b":v1:pool:{pool:", pool) + b":members"

    def _tagged(self, middle: bytes, name: str) -> bytes:
        return self._of(middle, name) + b"}"

    def _of(self, middle: bytes, name: str) -> bytes:
        return self._first + middle + name.encode("utf-8", "surrogatepass")
