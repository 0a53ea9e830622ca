"""How does a node's socket become a node, and its messages results?"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import Final

import msgspec

from dragoman.core.ids import NodeId
from dragoman.edge.connection import CLOSE_POLICY, Connection
from dragoman.edge.parts import Parts
from dragoman.protocol.codec import node_server_codec
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.letters import Unreached
from dragoman.protocol.link import Fault, Link
from dragoman.protocol.node_messages import (
    JobAck,
    JobResult,
    JobStarted,
    NodeAsrPartial,
    NodeDrain,
    NodeError,
    NodeHeartbeat,
    NodeInbound,
    NodeRegister,
    NodeRegisterAck,
)
from dragoman.routing.mailbox import NodeMailbox
from dragoman.store.interface import StoreDownError
from dragoman.telemetry.logs import get_logger

log = get_logger("node")

_PROBE_MS: Final = 2000
"""How long the older of two connections with one node id has to show that it lives."""

_EARLY_MAX: Final = 16

_KEEP_ASSIGNMENTS_TIMES: Final = 4
"""How many job time-outs an unanswered assignment is remembered: after that no answer of its node matters."""


class NodeConnection(Connection):
    """One node's socket."""

    def __init__(self, parts: Parts, *, is_binary: bool) -> None:
        super().__init__(parts.clock, parts.outbound, is_binary=is_binary, limits=parts.server)
        self._parts = parts
        codec = node_server_codec(is_binary=is_binary)
        self._link: Link[NodeInbound] = Link(codec, NodeRegister)
        self._mailbox = NodeMailbox(self, codec)
        self._is_registering = False
        self._early: deque[NodeInbound] = deque(maxlen=_EARLY_MAX)
        """What the node said while an older connection of its id was asked for a sign of life."""
        self._sign_of_life: asyncio.Future[None] | None = None
        self.node_id: NodeId | None = None

    def opened(self) -> None:
        """See Connection."""
        self._parts.open.nodes.add(self)

    def receive(self, frame: bytes, *, is_text: bool) -> None:
        """See Connection."""
        if self._sign_of_life is not None:
            self._lives()
        message = self._link.receive(frame, is_text=is_text)
        if isinstance(message, JobResult) and message.node_id == self.node_id:
            # What most messages are goes the shortest way.
            self._parts.errands.run(self._parts.results.heard(self.node_id, message), "job result")
        elif isinstance(message, Fault):
            self._fault(message)
        else:
            self._parts.errands.run(self._handle(message), "node message")

    def ponged(self, payload: bytes) -> None:
        """See Connection."""
        self._lives()

    def lost(self) -> None:
        """See Connection."""
        self._mailbox.is_closed = True
        self._parts.open.nodes.discard(self)
        if self._sign_of_life is not None and not self._sign_of_life.done():
            self._sign_of_life.cancel()
        if self.node_id is not None:
            self._parts.errands.run(self._lost(self.node_id), "node lost")

    def overflow(self) -> None:
        """See Connection."""
        self._mailbox.overflow()

    def end(self, code: int, reason: str) -> None:
        """End the connection from our side."""
        self._mailbox.close(code, reason)

    async def is_alive(self) -> bool:
        """Whether the peer answers a ping in time."""
        if self.is_gone or self._mailbox.is_closed:
            return False
        if self._sign_of_life is None or self._sign_of_life.done():
            self._sign_of_life = asyncio.get_running_loop().create_future()
        self.ping(b"probe")
        done, _ = await asyncio.wait([self._sign_of_life], timeout=_PROBE_MS / 1000)
        return bool(done) and not self._sign_of_life.cancelled()

    async def _handle(self, message: NodeInbound) -> None:
        if isinstance(message, NodeRegister):
            await self._register(message)
        elif self.node_id is None:
            if self._is_registering:
                self._early.append(message)
            else:
                self._fault(self._link.fault("type: wanted 'node_register', the last one was refused"))
        elif message.node_id not in (None, self.node_id):
            text = f"node_id: {message.node_id!r} is not the node of this connection, {self.node_id!r}"
            self._fault(self._link.fault(text))
        else:
            await self._listen(self.node_id, message)

    async def _listen(
        self,
        node_id: NodeId,
        message: NodeHeartbeat | JobAck | JobStarted | NodeAsrPartial | JobResult | NodeError | NodeDrain,
    ) -> None:
        match message:
            case JobResult() | JobAck() | JobStarted() | NodeAsrPartial():
                await self._parts.results.heard(node_id, message)
            case NodeHeartbeat():
                await self._heartbeat(node_id, message)
            case NodeError():
                self._complain(node_id, message)
            case NodeDrain():
                self._parts.membership.drain(node_id)

    async def _register(self, message: NodeRegister) -> None:
        if self._is_registering:
            self._fault(self._link.fault("type: 'node_register' while the one before is not answered"))
            return
        if self.node_id is not None and message.node_id not in (None, self.node_id):
            self._fault(self._link.fault(f"node_id: {message.node_id!r}, but this connection is {self.node_id!r}"))
            return
        self._is_registering = True
        # From here on other messages are no breach: a node need not wait for the ack to go on.
        self._link.is_open = True
        try:
            await self._take_place(message)
        except StoreDownError as error:
            text = f"the shared store cannot be used now: {error}"
            self._mailbox.post(Error(code=ErrorCode.SCHEDULER_DEPENDENCY_DOWN, message=text))
        finally:
            self._is_registering = False

    async def _take_place(self, message: NodeRegister) -> None:
        wanted = self.node_id or message.node_id or f"node-{secrets.token_hex(4).upper()}"
        node_id, is_new = NodeId(wanted), self.node_id is None
        message = msgspec.structs.replace(message, node_id=node_id)
        if is_new and not (await self._displace(node_id) and await self._claim(node_id)):
            text = f"node_id: {node_id!r} is connected already, and alive"
            self._mailbox.post(Error(code=ErrorCode.NODE_ID_CONFLICT, message=text))
            return
        registered = None if self.is_gone else self._parts.membership.register(message)
        if not isinstance(registered, str):
            if is_new:
                await self._parts.store.release_node(node_id, self._parts.instance_id)
            if registered is not None:
                self._refuse(registered)
            return
        self.node_id = node_id
        entry = self._parts.dispatcher.view.get(node_id)
        self._mailbox.slots = 0 if entry is None else entry.node.slots
        self._parts.open.by_node[node_id] = self
        self._parts.router.nodes[node_id] = self._mailbox
        beat_ms = self._parts.scheduler.node_health.heartbeat_interval_seconds * 1000
        self._mailbox.post(
            NodeRegisterAck(node_id=node_id, message="registered", status="registering", heartbeat_interval_ms=beat_ms)
        )
        while self._early:
            await self._handle(self._early.popleft())

    async def _claim(self, node_id: NodeId) -> bool:
        """Hold the node's id for this instance, unless it is connected to another one and alive."""
        parts = self._parts
        holder = await parts.store.claim_node(node_id, parts.instance_id, None, parts.owner_ttl_ms)
        if holder is None:
            return True
        if await parts.probes.is_alive(node_id, holder):
            return False
        log.info("node comes from another instance", node_id=node_id, was_at=holder)
        return await parts.store.claim_node(node_id, parts.instance_id, holder, parts.owner_ttl_ms) is None

    async def _displace(self, node_id: NodeId) -> bool:
        """Make room for this connection, unless another one with the same node id is alive."""
        while (older := self._parts.open.by_node.get(node_id)) is not None:
            if await older.is_alive():
                return False
            if self._parts.open.by_node.get(node_id) is not older:
                continue  # another newcomer was faster
            older.end(CLOSE_POLICY, "the node connected anew")
            if not older.is_gone:
                older.is_gone = True
                older.lost()
            if self._parts.open.by_node.get(node_id) is older:
                del self._parts.open.by_node[node_id]
        return True

    async def _heartbeat(self, node_id: NodeId, message: NodeHeartbeat) -> None:
        wrong = await self._parts.membership.heartbeat(node_id, message)
        if wrong is not None:
            self._refuse(wrong)
            return
        keep_ms = self._parts.dispatcher.policy.job_timeout_ms * _KEEP_ASSIGNMENTS_TIMES
        self._mailbox.forget_before(self._clock.now_ms() - keep_ms)
        await self._parts.dispatcher.serve_waiting(node_id)

    def _complain(self, node_id: NodeId, message: NodeError) -> None:
        log.warning("node complains", node_id=node_id, code=message.code)
        if message.code == ErrorCode.MODEL_NOT_AVAILABLE:
            self._parts.membership.mark_unavailable(node_id, None, message.details or {})

    async def _lost(self, node_id: NodeId) -> None:
        parts = self._parts
        if parts.router.nodes.get(node_id) is not self._mailbox:
            return
        del parts.router.nodes[node_id]
        if parts.open.by_node.get(node_id) is self:
            del parts.open.by_node[node_id]
        parts.membership.lost(node_id)
        for job_id, given in self._mailbox.assignments.items():
            if given.owner is not None:
                parts.router.outbox.post(given.owner, Unreached(job_id, given.attempt, node_id, had_it=True))
        await parts.rescue.node_lost(node_id)
        await parts.directory.let_go(node_id)

    def _lives(self) -> None:
        if self._sign_of_life is not None and not self._sign_of_life.done():
            self._sign_of_life.set_result(None)

    def _refuse(self, wrong: Error) -> None:
        """Answer with an error; one for a message that says something impossible is a strike."""
        if wrong.code == ErrorCode.INVALID_MESSAGE:
            self._fault(self._link.fault(wrong.message))
        else:
            self._mailbox.post(wrong)

    def _fault(self, fault: Fault) -> None:
        self._parts.metrics.bad_messages.labels("node").inc()
        if fault.error is not None:
            self._mailbox.post(fault.error)
        if fault.is_last:
            self._mailbox.close(CLOSE_POLICY, "too many bad messages")
