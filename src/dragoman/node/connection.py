"""What happens on one connection to the scheduler, from its registration until it breaks?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dragoman.node.jobs import Jobs
from dragoman.node.outbox import Outbox, Outgoing
from dragoman.protocol.codec import Codec, FormatError, UnknownTypeError
from dragoman.protocol.fields import Error, ErrorCode
from dragoman.protocol.node_messages import (
    JobAssign,
    JobFailure,
    JobResult,
    NodeControl,
    NodeHeartbeat,
    NodeJobCancel,
    NodeOutbound,
    NodeRegister,
    NodeRegisterAck,
)
from dragoman.telemetry.logs import get_logger
from dragoman.websocket import ClientSocket, SocketClosedError

_log = get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The connection is gone."""

    why: str


Greeting: TypeAlias = NodeRegisterAck | Error | Lost


class Connection:
    """A socket to the scheduler and what is said on it."""

    def __init__(
        self, socket: ClientSocket, codec: Codec[NodeOutbound], *, jobs: Jobs, outbox: Outbox, frame_bytes_max: int
    ) -> None:
        self._socket = socket
        self._codec = codec
        self._jobs = jobs
        self._outbox = outbox
        self._frame_bytes_max = frame_bytes_max
        self._bad_count = 0

    async def register(self, message: NodeRegister, *, wait_s: float) -> Greeting:
        """Say who we are; what the scheduler says to that."""
        try:
            async with asyncio.timeout(wait_s):
                await self._socket.send(self._codec.encode(message))
                while True:
                    answer = await self._receive()
                    if isinstance(answer, NodeRegisterAck | Error):
                        return answer
        except TimeoutError:
            return Lost(why=f"no answer to node_register within {wait_s:g} s")
        except SocketClosedError as error:
            return Lost(why=str(error))

    async def talk(
        self,
        node_id: str,
        *,
        heartbeat: Callable[[], NodeHeartbeat],
        heartbeat_s: float,
        obey: Callable[[NodeControl], None],
    ) -> Lost:
        """Beat, take jobs and bring results, until the connection breaks."""
        self._outbox.open()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(heartbeat, heartbeat_s), name="heartbeats")
                group.create_task(self._bring(), name="results")
                group.create_task(self._listen(node_id, obey), name="orders")
        except* SocketClosedError as closed:
            why = str(closed.exceptions[0])
        finally:
            self._outbox.close()
        if self._bad_count:
            _log.warning("messages_not_understood", node_id=node_id, count=self._bad_count)
        return Lost(why=why)

    async def _beat(self, heartbeat: Callable[[], NodeHeartbeat], heartbeat_s: float) -> None:
        while True:
            await self._socket.send(self._codec.encode(heartbeat()))
            await asyncio.sleep(heartbeat_s)

    async def _bring(self) -> None:
        while True:
            message = await self._outbox.next()
            frame = self._frame(message)
            if frame is not None:
                await self._socket.send(frame)
            self._outbox.sent(message)

    def _frame(self, message: Outgoing) -> bytes | None:
        """The frame of a message; of a result that makes none, the frame of a failure that says why."""
        try:
            frame = self._codec.encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # Functions of users made what is in it: texts with half characters, details of any type.
            reason = JobFailure(code=ErrorCode.INTERNAL_ERROR, message="the result fits into no message")
        else:
            if len(frame) <= self._frame_bytes_max:
                return frame
            seen = f"the result has {len(frame)} bytes; wanted {self._frame_bytes_max} at most"
            reason = JobFailure(code=ErrorCode.PAYLOAD_TOO_LARGE, message=seen)
        if not isinstance(message, JobResult):
            return None
        _log.warning("result_not_sent", job_id=message.job_id, reason=reason.message)
        return self._codec.encode(
            JobResult(
                job_id=message.job_id,
                attempt_id=message.attempt_id,
                node_id=message.node_id,
                session_id=message.session_id,
                utterance_index=message.utterance_index,
                success=False,
                trace_id=message.trace_id,
                error=reason,
            )
        )

    async def _listen(self, node_id: str, obey: Callable[[NodeControl], None]) -> None:
        while True:
            match await self._receive():
                case JobAssign() as job:
                    self._jobs.assign(job, node_id)
                case NodeJobCancel(job_id=job_id):
                    self._jobs.cancel(job_id)
                case NodeControl() as control:
                    obey(control)
                case Error(code=code):
                    _log.warning("scheduler_error", node_id=node_id, code=code[:64])
                case NodeRegisterAck():
                    continue

    async def _receive(self) -> NodeOutbound:
        """The next message that can be read. A scheduler newer than we are may say more: that is passed over."""
        while True:
            frame = await self._socket.receive()
            try:
                return self._codec.decode(frame)
            except UnknownTypeError as error:
                reason = str(error)
            except FormatError as error:
                reason = str(error)
            self._bad_count += 1
            if self._bad_count == 1:
                _log.warning("message_not_understood", reason=reason[:200])
