"""How does a program become a node: connect, register, serve, come back after a loss, and stop well?"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from dragoman import loop
from dragoman.node.calls import Calls, TimeLimits
from dragoman.node.connection import Connection, Lost
from dragoman.node.errors import NodeRefusedError
from dragoman.node.jobs import Jobs
from dragoman.node.outbox import Outbox
from dragoman.node.pipeline import Pipeline
from dragoman.node.registration import Identity, Machine, heartbeat, register
from dragoman.node.services import Services
from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, node_client_codec
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.node_messages import Gpu, NodeControl, NodeDrain, NodeHeartbeat, NodeRegisterAck
from dragoman.telemetry.logs import get_logger
from dragoman.websocket import ClientSocket, SocketRefusedError

_log = get_logger("node")

_REFUSALS: Final = frozenset(
    {
        ErrorCode.INVALID_MESSAGE,
        ErrorCode.INVALID_CAPABILITY_SCHEMA,
        ErrorCode.UNSUPPORTED_FEATURE,
        ErrorCode.NO_GPU_AVAILABLE,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
    }
)
"""Answers to a registration that will be the same next time."""
_HEARTBEAT_S: Final = 15.0
"""Seconds between heartbeats when neither the program nor the scheduler says otherwise."""
_ANSWER_WAIT_S: Final = 10.0
_STEADY_S: Final = 5.0
"""A connection that held for so long was a good one: the next loss is retried at once."""


class Node:
    """A worker that offers its services to a scheduler.

    `slots` is how many jobs it runs at a time. With a `node_id` it is the same node after a restart; without one the
    scheduler names it. A node with a `tenant_id` serves that tenant, and others too unless `accept_public_jobs` is
    false. `grace_s` is how long running jobs may take once the node is told to stop.
    `message_bytes_max` is the scheduler's `server.max_message_bytes`: a result longer than that fails.
    """

    def __init__(
        self,
        services: Services,
        *,
        slots: int = 1,
        node_id: str | None = None,
        tenant_id: str | None = None,
        accept_public_jobs: bool = True,
        token: str | None = None,
        json: bool = False,
        gpus: Sequence[Gpu] = (),
        features: dict[str, Any] | None = None,
        heartbeat_s: float | None = None,
        grace_s: float = 30,
        limits: TimeLimits | None = None,
        message_bytes_max: int = 8 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots = {slots}: a node wants 1 or more")
        if not services.offers:
            raise ValueError("a node wants at least one service; these offer none")
        self._services = services
        self._identity = Identity(
            slots=slots,
            tenant_id=tenant_id,
            accept_public_jobs=accept_public_jobs,
            gpus=tuple(gpus),
            features=dict(features or {}),
        )
        self._node_id = node_id
        self._token = token
        self._is_binary = not json
        self._heartbeat_s = heartbeat_s
        self._grace_s = grace_s
        self._limits = limits or TimeLimits()
        self._message_bytes_max = message_bytes_max
        self._tls = tls
        self._stopping = asyncio.Event()
        self._refusal: NodeRefusedError | None = None
        self._retry = _Retry()

    @property
    def node_id(self) -> str | None:
        """The node's id: given, or of the scheduler, once it has answered."""
        return self._node_id

    def run(self, url: str) -> None:
        """Serve the scheduler at `url` until SIGTERM, SIGINT or the scheduler ends it.

        The first signal lets running jobs end, within the grace; a second one stops the program at once.
        Raises NodeRefusedError if the scheduler will not have the node.
        """
        loop.run(self._run(url))

    async def serve(self, url: str) -> None:
        """Serve the scheduler at `url` until `stop` is called or the scheduler ends it; once for each Node.

        A lost connection is tried again for ever. Raises NodeRefusedError if the scheduler will not have the node.
        """
        machine = await asyncio.to_thread(Machine)
        calls = Calls(threads=self._identity.slots, limits=self._limits)
        outbox = Outbox()
        try:
            async with asyncio.TaskGroup() as group:
                pipeline = Pipeline(self._services, calls)
                jobs = Jobs(group, pipeline=pipeline, calls=calls, outbox=outbox, slots=self._identity.slots)
                link = group.create_task(self._stay_connected(url, machine, jobs, outbox), name="connection")
                await self._stopping.wait()
                await self._finish(jobs, outbox)
                link.cancel()
                jobs.abandon()
        finally:
            calls.close()
        if self._refusal is not None:
            raise self._refusal
        _log.info("node_stopped", node_id=self._node_id)

    def stop(self) -> None:
        """Take no more jobs; `serve` returns when those that run have ended, or the grace has."""
        self._stopping.set()

    async def _run(self, url: str) -> None:
        with _signals(self.stop):
            await self.serve(url)

    async def _finish(self, jobs: Jobs, outbox: Outbox) -> None:
        if self._refusal is not None:
            return
        _log.info("node_draining", node_id=self._node_id, running=len(jobs.running_ids), grace_s=self._grace_s)
        outbox.tell(NodeDrain(node_id=self._node_id))
        try:
            async with asyncio.timeout(self._grace_s):
                await jobs.idle()
                await outbox.empty()
        except TimeoutError:
            _log.warning("grace_over", node_id=self._node_id, running=len(jobs.running_ids), unsent=len(outbox))

    async def _stay_connected(self, url: str, machine: Machine, jobs: Jobs, outbox: Outbox) -> None:
        while True:
            began = time.monotonic()
            lost = await self._connect_once(url, machine, jobs, outbox)
            if isinstance(lost, NodeRefusedError):
                self._refusal = lost
                self._stopping.set()
                return
            if time.monotonic() - began >= _STEADY_S:
                self._retry.reset()
            wait_s = self._retry.next_s()
            _log.warning("disconnected", node_id=self._node_id, why=lost.why, retry_in_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)

    async def _connect_once(self, url: str, machine: Machine, jobs: Jobs, outbox: Outbox) -> Lost | NodeRefusedError:
        subprotocol = MSGPACK_SUBPROTOCOL if self._is_binary else None
        try:
            socket = await ClientSocket.connect(url, subprotocol=subprotocol, token=self._token, tls=self._tls)
        except SocketRefusedError as error:
            return Lost(why=str(error))
        try:
            codec = node_client_codec(is_binary=self._is_binary)
            connection = Connection(socket, codec, jobs=jobs, outbox=outbox, frame_bytes_max=self._message_bytes_max)
            message = register(self._services, self._identity, self._node_id)
            match await connection.register(message, wait_s=_ANSWER_WAIT_S):
                case Error(code=code, message=text) if code in _REFUSALS:
                    return NodeRefusedError(code, text)
                case Error(code=code, message=text):
                    return Lost(why=f"{code}: {text}"[:500])
                case Lost() as lost:
                    return lost
                case NodeRegisterAck(node_id=node_id, heartbeat_interval_ms=wanted_ms):
                    self._node_id = node_id
            heartbeat_s = self._heartbeat_s or (wanted_ms or 0) / 1000 or _HEARTBEAT_S
            return await self._talk(connection, node_id, machine, jobs, outbox, heartbeat_s)
        finally:
            await socket.close()

    async def _talk(
        self,
        connection: Connection,
        node_id: str,
        machine: Machine,
        jobs: Jobs,
        outbox: Outbox,
        heartbeat_s: float,
    ) -> Lost:
        _log.info("registered", node_id=node_id, slots=self._identity.slots)
        if self._stopping.is_set():
            outbox.tell(NodeDrain(node_id=node_id))

        def beat() -> NodeHeartbeat:
            return heartbeat(
                self._services,
                machine,
                node_id=node_id,
                running_ids=jobs.running_ids,
                busy_count=jobs.busy_count,
            )

        return await connection.talk(node_id, heartbeat=beat, heartbeat_s=heartbeat_s, obey=self._obey)

    def _obey(self, control: NodeControl) -> None:
        """Only `shutdown` ends the node: a drained one stays, since the operator may take the drain back."""
        _log.info("told", node_id=self._node_id, command=control.command)
        if control.command == "shutdown":
            self.stop()


class _Retry:
    """Waits that double up to a bound, each by chance between half of it and all, so that nodes do not come as one."""

    first_s: Final = 0.2
    last_s: Final = 15.0

    def __init__(self) -> None:
        self._bound_s = self.first_s
        self._random = random.Random()  # noqa: S311 — no secret hangs on it

    def reset(self) -> None:
        self._bound_s = self.first_s

    def next_s(self) -> float:
        wait_s = self._bound_s * self._random.uniform(0.5, 1)
        self._bound_s = min(self.last_s, self._bound_s * 2)
        return max(self.first_s, wait_s)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT call `stop`; whichever comes second ends the program in the system's way."""
    running = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def first() -> None:
        for number in numbers:
            running.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in numbers:
        running.add_signal_handler(number, first)
    try:
        yield
    finally:
        for number in numbers:
            running.remove_signal_handler(number)
