"""Who does the work? Nodes that follow a script: they take their time, stay silent, move elsewhere, and count."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import msgspec

from dragoman.protocol.codec import MSGPACK_SUBPROTOCOL, node_client_codec
from dragoman.protocol.fields import Error
from dragoman.protocol.node_messages import (
    JobAck,
    JobAssign,
    JobFailure,
    NodeControl,
    NodeDrain,
    NodeJobCancel,
    NodeOutbound,
    NodeRegisterAck,
)
from dragoman.websocket import ClientSocket, SocketClosedError, SocketRefusedError
from tests.cluster.fleet import kept_busy, until
from tests.cluster.record import Record
from tests.support.builders import a_job_result, a_node_heartbeat, a_node_register, a_usage, capabilities

_BEAT_S: Final = 0.4
_AGAIN_S: Final = 0.1
_SERVICES: Final = ("asr", "nmt", "tts")


class ScriptedNode:
    """A node that runs each job for a while, wherever it is connected meanwhile, and counts how many at a time."""

    def __init__(
        self,
        record: Record,
        urls: Sequence[str],
        name: str,
        *,
        slots: int = 2,
        delay_s: float = 0.05,
        is_deaf: bool = False,
        **fields: Any,
    ) -> None:
        """`is_deaf`: once it is let in it reads nothing and says nothing, as a machine that has vanished."""
        self.record = record
        self.urls = list(urls)
        """Where it connects, the next one after each loss; nowhere while there is none."""
        self.name = name
        self.slots = slots
        self.delay_s = delay_s
        self.is_silent = False
        """Whether it acknowledges nothing and answers nothing."""
        self.failure: JobFailure | None = None
        """How every job ends."""
        self.services: tuple[str, ...] = _SERVICES
        self.running: dict[tuple[str, int], JobAssign] = {}
        self.most = 0
        """How many jobs it has run at a time."""
        self.given: list[JobAssign] = []
        self.cancelled: list[str] = []
        self.errors: list[Error] = []
        self.closes: list[int] = []
        """With which codes its connections ended."""
        self.is_connected = asyncio.Event()
        self.connected_s: list[float] = []
        """When it was let in."""
        self._is_deaf = is_deaf
        self._fields = fields
        self._socket: ClientSocket | None = None
        self._codec = node_client_codec(is_binary=True)
        self._work: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Be there, until cancelled."""
        try:
            for at in itertools.count():
                await until(lambda: self.urls, within_s=60)
                with suppress(SocketClosedError, SocketRefusedError):
                    await self._connect(self.urls[at % len(self.urls)])
                self.is_connected.clear()
                if self._socket is not None:
                    self._socket.abort()
                await asyncio.sleep(_AGAIN_S)
        finally:
            for task in self._work:
                task.cancel()
            if self._socket is not None:
                self._socket.abort()

    def drop(self) -> None:
        """Lose the connection."""
        assert self._socket is not None
        self._socket.abort()

    async def say(self, message: msgspec.Struct) -> None:
        """Send a message."""
        assert self._socket is not None
        await self._socket.send(self._codec.encode(message))

    async def beat(self) -> None:
        """Tell how it is and what it runs."""
        await self.say(
            a_node_heartbeat(
                self.name,
                resource_usage=a_usage(running_jobs=len(self.running)),
                capability_by_type=capabilities(*self.services),
                running_job_ids=[job_id for job_id, _ in self.running],
            )
        )

    async def drain(self) -> None:
        """Ask for nothing more."""
        await self.say(NodeDrain(node_id=self.name))

    async def finish(self, job: JobAssign, **fields: Any) -> None:
        """Be done with a job."""
        text = job.audio.decode(errors="replace").upper()
        await self._answer(job, **({"text_asr": text, "text_translated": text} | fields))

    def about(self, job: JobAssign) -> dict[str, Any]:
        """What names a job in a message."""
        return {
            "job_id": job.job_id,
            "attempt_id": job.attempt_id,
            "node_id": self.name,
            "session_id": job.session_id,
            "trace_id": job.trace_id,
        }

    # --- how

    async def _connect(self, url: str) -> None:
        self._socket = socket = await ClientSocket.connect(
            f"{url}/ws/node", subprotocol=MSGPACK_SUBPROTOCOL, connect_timeout_s=2
        )
        await self.say(
            a_node_register(
                self.name, max_concurrent_jobs=self.slots, capability_by_type=capabilities(*_SERVICES), **self._fields
            )
        )
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                self._hear(self._codec.decode(await socket.receive()))
        except SocketClosedError as closed:
            self.closes.append(closed.code)
            raise
        finally:
            beating.cancel()

    def _fall_silent(self) -> None:
        assert self._socket is not None
        assert self._socket._transport is not None
        self._socket._transport.underlying_transport.pause_reading()
        self.is_connected.set()

    async def _beat(self) -> None:
        await self.is_connected.wait()
        with suppress(SocketClosedError):
            while not self._is_deaf:
                await self.beat()
                await asyncio.sleep(_BEAT_S)

    def _hear(self, message: NodeOutbound) -> None:
        match message:
            case NodeRegisterAck():
                self.is_connected.set()
                self.connected_s.append(self.record.now_s())
                if self._is_deaf:
                    self._fall_silent()
            case JobAssign():
                self._take(message)
            case NodeJobCancel(job_id=job_id):
                self.cancelled.append(job_id)
            case Error():
                self.errors.append(message)
                if not self.is_connected.is_set():
                    self.drop()
            case NodeControl():
                pass

    def _take(self, job: JobAssign) -> None:
        self.running[(job.job_id, job.attempt_id)] = job
        self.given.append(job)
        self.most = max(self.most, len(self.running))
        self.record.given(self.name, job.job_id, job.attempt_id, len(self.running), self.slots)
        if not self.is_silent:
            task = asyncio.create_task(self._do(job))
            self._work.add(task)
            task.add_done_callback(self._work.discard)

    async def _do(self, job: JobAssign) -> None:
        with suppress(SocketClosedError):
            await self.say(JobAck(**self.about(job)))
        over_s = self.record.now_s() + self.delay_s
        while self.record.now_s() < over_s:
            if job.job_id in self.cancelled:
                await self._answer(job, success=False, error=JobFailure(code="JOB_CANCELLED", message="stopped"))
                return
            await asyncio.sleep(min(0.02, max(0.0, over_s - self.record.now_s())))
        if self.failure is not None:
            await self._answer(job, success=False, error=self.failure)
        else:
            await self.finish(job)

    async def _answer(self, job: JobAssign, **fields: Any) -> None:
        """Done is done, wherever that can be told."""
        message = a_job_result(utterance_index=job.utterance_index, **(self.about(job) | fields))
        while True:
            await self.is_connected.wait()
            self.running.pop((job.job_id, job.attempt_id), None)
            try:
                await self.say(message)
            except SocketClosedError:
                await asyncio.sleep(_AGAIN_S)
            else:
                return


@asynccontextmanager
async def nodes_at(
    record: Record, *placed: tuple[Sequence[str], str], **options: Any
) -> AsyncIterator[list[ScriptedNode]]:
    """Nodes with names, each with where it connects; connected when the block begins, gone when it ends."""
    nodes = [ScriptedNode(record, urls, name, **options) for urls, name in placed]
    async with kept_busy(*[node.run() for node in nodes]):
        for node in nodes:
            await until(node.is_connected.is_set, what=partial("a node is not let in: {0.errors}".format, node))
        yield nodes
