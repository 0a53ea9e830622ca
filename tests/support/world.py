"""A whole instance with sessions and nodes around it, without sockets: what a story is told with."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import msgspec

from dragoman.app import App, running_app
from dragoman.config.settings import Settings
from dragoman.edge.connection import Connection
from dragoman.edge.node_connection import NodeConnection
from dragoman.edge.session_connection import SessionConnection
from dragoman.protocol.codec import node_client_codec, session_client_codec
from dragoman.protocol.fields import Error, Pipeline
from dragoman.protocol.node_messages import (
    CapabilityByType,
    Hardware,
    JobAck,
    JobAssign,
    JobFailure,
    JobResult,
    JobStarted,
    LanguageDeclaration,
    NodeHeartbeat,
    NodeJobCancel,
    NodeRegister,
    ResourceUsage,
)
from dragoman.protocol.session_messages import (
    MissingResult,
    SessionInit,
    SessionInitAck,
    TranslationResult,
    Utterance,
)

M = TypeVar("M", bound=msgspec.Struct)

ALL_SERVICES = ("asr", "nmt", "tts")


class _FakeSocket(Connection):
    """What both fake connections do in place of a socket: keep what was sent, answer pings, remember the end."""

    heard: list[Any]
    closed: int | None
    answers_pings: bool
    decode: Callable[[bytes], Any]

    def write_frames(self) -> None:
        frames, self._frames = self._frames, []
        self.heard.extend(self.decode(frame) for frame in frames)

    def close(self, code: int, reason: str) -> None:
        if not self.is_gone:
            self.write_frames()
            self.closed = code
            self.is_gone = True
            self.lost()

    def ping(self, payload: bytes = b"") -> None:
        if self.answers_pings and not self.is_gone:
            self._has_spoken = True
            self.ponged(payload)


class FakeSessionConnection(_FakeSocket, SessionConnection):
    """A client's connection without a socket."""


class FakeNodeConnection(_FakeSocket, NodeConnection):
    """A node's connection without a socket."""


class _Peer:
    """Who sits at the other end."""

    def __init__(self, connection: Any, decode: Callable[[bytes], Any]) -> None:
        self.connection = connection
        connection.heard = []
        connection.closed = None
        connection.answers_pings = True
        connection.decode = decode

    @property
    def heard(self) -> list[Any]:
        """Every message so far."""
        return self.connection.heard  # type: ignore[no-any-return]

    @property
    def closed(self) -> int | None:
        """The close code, once the connection was ended."""
        return self.connection.closed  # type: ignore[no-any-return]

    def say(self, message: msgspec.Struct) -> None:
        """Send a message."""
        self.say_raw(msgspec.json.encode(message))

    def say_raw(self, frame: bytes, *, is_text: bool = True) -> None:
        """Send a frame as it is."""
        self.connection._has_spoken = True
        self.connection.receive(frame, is_text=is_text)

    def hang_up(self) -> None:
        """Lose the connection."""
        if not self.connection.is_gone:
            self.connection.is_gone = True
            self.connection.lost()

    def all(self, kind: type[M]) -> list[M]:
        """The messages of one type so far."""
        return [message for message in self.heard if isinstance(message, kind)]

    async def hears(self, kind: type[M], count: int = 1, within_s: float = 120) -> list[M]:
        """Wait until that many messages of a type have come."""
        deadline_s = asyncio.get_running_loop().time() + within_s
        while len(self.all(kind)) < count:
            if asyncio.get_running_loop().time() > deadline_s:
                raise AssertionError(f"wanted {count} {kind.__name__} within {within_s} s, heard {self.heard}")
            await asyncio.sleep(0.01)
        return self.all(kind)


class FakeNode(_Peer):
    """A node that does what the story says."""

    def __init__(self, world: World, node_id: str) -> None:
        connection = FakeNodeConnection(world.app.parts, is_binary=False)
        super().__init__(connection, node_client_codec(is_binary=False).decode)
        world.app.parts.open.nodes.add(connection)
        self.node_id = node_id
        self.services: tuple[str, ...] = ALL_SERVICES
        self.running: list[str] | None = []
        """What its heartbeats say it runs; None: it is a node that does not say."""

    def register(self, **fields: Any) -> None:
        """Say who it is."""
        self.say(
            msgspec.structs.replace(
                NodeRegister(
                    node_id=self.node_id,
                    version="1",
                    platform="test",
                    hardware=Hardware(cpu_cores=1, memory_gb=1),
                    installed_models=[],
                    capability_by_type=self.capabilities(),
                    features_supported={},
                    accept_public_jobs=True,
                ),
                **fields,
            )
        )

    def heartbeat(self, *, cpu: float = 1.0, **fields: Any) -> None:
        """Say that it is well."""
        self.say(
            NodeHeartbeat(
                node_id=self.node_id,
                timestamp=0,
                resource_usage=ResourceUsage(cpu_percent=cpu, mem_percent=1, running_jobs=len(self.running or ())),
                installed_services=[],
                capability_by_type=self.capabilities(),
                running_job_ids=self.running,
                **fields,
            )
        )

    def capabilities(self) -> list[CapabilityByType]:
        """Which services it has."""
        return [CapabilityByType(type=kind, ready=True) for kind in self.services]

    @property
    def jobs(self) -> list[JobAssign]:
        """Every job it was given."""
        return self.all(JobAssign)

    @property
    def cancels(self) -> list[NodeJobCancel]:
        """Every cancel it was told."""
        return self.all(NodeJobCancel)

    async def gets_job(self, count: int = 1, within_s: float = 120) -> JobAssign:
        """Wait for its `count`-th job."""
        return (await self.hears(JobAssign, count, within_s))[count - 1]

    def ack(self, job: JobAssign, **fields: Any) -> None:
        """Take a job."""
        self.say(msgspec.structs.replace(JobAck(**self._about(job)), **fields))

    def start(self, job: JobAssign) -> None:
        """Begin to work on a job."""
        self.say(JobStarted(**self._about(job)))

    def finish(self, job: JobAssign, text: str = "done", **fields: Any) -> None:
        """Answer a job."""
        result = JobResult(
            **self._about(job), utterance_index=job.utterance_index, success=True, text_asr="", text_translated=text
        )
        self.say(msgspec.structs.replace(result, **fields))

    def fail(self, job: JobAssign, code: str, **details: Any) -> None:
        """Say that a job could not be done."""
        self.finish(job, success=False, error=JobFailure(code=code, message="told so", details=details))

    def _about(self, job: JobAssign) -> dict[str, Any]:
        return {
            "job_id": job.job_id,
            "attempt_id": job.attempt_id,
            "node_id": self.node_id,
            "session_id": job.session_id,
            "trace_id": job.trace_id,
        }


class FakeSession(_Peer):
    """A client that says what the story says."""

    def __init__(self, world: World) -> None:
        connection = FakeSessionConnection(world.app.parts, world.app.parts.instance_id, is_binary=False)
        super().__init__(connection, session_client_codec(is_binary=False).decode)
        world.app.parts.open.sessions.add(connection)
        self._indexes = itertools.count()

    async def open(self, **fields: Any) -> SessionInitAck:
        """Open the session."""
        init = SessionInit(client_version="1", platform="test", src_lang="en", tgt_lang="pt")
        self.say(msgspec.structs.replace(init, **fields))
        return (await self.hears(SessionInitAck))[0]

    @property
    def ack(self) -> SessionInitAck:
        """What it was told when it opened."""
        return self.all(SessionInitAck)[-1]

    def speak(self, text: str = "hello", **fields: Any) -> int:
        """Say something; answers its index."""
        index = fields.pop("utterance_index", None)
        index = next(self._indexes) if index is None else index
        utterance = Utterance(
            session_id=self.ack.session_id,
            utterance_index=index,
            manual_cut=True,
            src_lang="en",
            tgt_lang="pt",
            audio=text.encode(),
            audio_format="text",
            sample_rate=0,
        )
        self.say(msgspec.structs.replace(utterance, **fields))
        return index

    @property
    def results(self) -> list[TranslationResult]:
        """Every result so far."""
        return self.all(TranslationResult)

    @property
    def errors(self) -> list[Error]:
        """Every error so far."""
        return self.all(Error)

    @property
    def terminals(self) -> list[tuple[int, str]]:
        """Every terminal message so far: index, and how it ended."""
        found: list[tuple[int, str]] = []
        for message in self.heard:
            match message:
                case TranslationResult():
                    found.append((message.utterance_index, "result"))
                case MissingResult():
                    found.append((message.utterance_index, message.reason))
                case Error(details={"utterance_index": int() as index}):
                    found.append((index, message.code))
                case _:
                    pass
        return found


class World:
    """One instance, and what a story needs around it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._numbers = itertools.count(1)

    async def node(self, node_id: str | None = None, *, slots: int = 1, beats: bool = True, **fields: Any) -> FakeNode:
        """A ready node."""
        node = FakeNode(self, node_id or f"n{next(self._numbers)}")
        node.services = fields.pop("services", ALL_SERVICES)
        node.register(max_concurrent_jobs=slots, **fields)
        if beats:
            node.heartbeat()
        await asyncio.sleep(0)
        return node

    async def session(self, **fields: Any) -> FakeSession:
        """An open session."""
        session = FakeSession(self)
        await session.open(**fields)
        return session

    def slots_held(self, node_id: str) -> int:
        """How many slots of a node the view believes taken."""
        entry = self.app.parts.dispatcher.view.get(node_id)  # type: ignore[arg-type]
        return 0 if entry is None else entry.used


@asynccontextmanager
async def a_world(**overrides: Any) -> AsyncIterator[World]:
    """A world with settings `section__key=value` over the defaults; on any free port."""
    values: dict[str, Any] = {"server": {"port": 0}}
    for path, value in overrides.items():
        *sections, key = path.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    async with running_app(Settings.model_validate(values), rng=Random(1)) as app:
        yield World(app)


def languages(*pairs: tuple[str, str]) -> LanguageDeclaration:
    """What a node says that translates just these pairs."""
    return LanguageDeclaration(
        supported_language_pairs=[{"src": src, "tgt": tgt} for src, tgt in pairs]  # type: ignore[misc]
    )


NO_SPEECH = Pipeline(use_tts=False)
