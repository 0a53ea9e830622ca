"""What does the program ask of its memory?

Each verb is one atomic step, and one round trip where the memory is elsewhere. A store compares and sets; it decides
nothing and calls nobody. Expected outcomes are values. Times are milliseconds of the store's own clock.

Slots: a hold is a claim of one job's attempt on one unit of a node's concurrency, with a deadline. Holds are the only
authority on capacity, whatever any view believes. A hold outlives its job while the node may still be at work on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from dragoman.core.ids import JobId, NodeId, SessionId, TenantId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import JobState
from dragoman.protocol.session_messages import SessionInit, Terminal


class StoreDownError(ConnectionError):
    """The memory cannot be reached: nothing new may be accepted."""


class Job(Struct, frozen=True):
    """A job as the store knows it."""

    job_id: JobId
    request: JobRequest | None
    """None once it ended: nobody needs the audio again."""
    state: JobState
    attempt: int
    node_id: NodeId | None
    terminal: Terminal | None
    """How it ended, once it did."""


# --- reserving


class Reserved(Struct, frozen=True):
    """The attempt has a slot at the node, of which `used` are taken now."""

    node_id: NodeId
    attempt: int
    used: int
    tried: tuple[tuple[NodeId, int], ...]
    """Nodes before it in the ranking, full, with how many slots they have taken."""


class AllFull(Struct, frozen=True):
    """No node of the ranking has a free slot; the live count of each."""

    tried: tuple[tuple[NodeId, int], ...]


class Stale(Struct, frozen=True):
    """The job is not where the caller believed: nothing was changed. None: there is no such job."""

    state: JobState | None
    attempt: int


class Known(Struct, frozen=True):
    """The request has a job already."""

    job: Job


class Moved(Struct, frozen=True):
    """The job moved."""


Placement: TypeAlias = Reserved | AllFull


class Release(StrEnum):
    """What came of giving a slot back."""

    RELEASED = "released"
    NOT_HELD = "not_held"


class Slots(Struct, frozen=True):
    """How many slots of a node are taken after a step, and how many the step gave back."""

    used: int
    released: int = 0


class Lapsed(NamedTuple):
    """A hold whose lease ran out: nobody renewed it."""

    node_id: NodeId
    job_id: JobId
    attempt: int


# --- sessions


class SessionRecord(Struct, frozen=True, kw_only=True):
    """What a resume on any instance needs to know of a session."""

    session_id: SessionId
    tenant_id: TenantId | None
    init: SessionInit
    trace_id: str


class Parked(Struct, frozen=True, kw_only=True):
    """A terminal message that its session has not had, or may not have had."""

    serial: int
    """Its number among the terminal messages of the session, from 1."""
    message: Terminal


class Resumed(Struct, frozen=True):
    """The session goes on; here is what it has not had."""

    record: SessionRecord
    parked: tuple[Parked, ...]


class NoResume(StrEnum):
    """Why a session does not go on."""

    UNKNOWN = "unknown"
    WRONG_TOKEN = "wrong_token"  # noqa: S105  # the name of an outcome, not a secret


class Store(Protocol):
    """The seam. MemoryStore and the Valkey store pass one contract suite."""

    # --- jobs and slots

    async def open_job(self, request: JobRequest, ranking: Sequence[Candidate], lease_ms: int) -> Known | Placement:
        """Create the job unless its id is known, and reserve the first free node of the ranking for attempt 1.

        AllFull, also with an empty ranking: the job is created and has no slot.
        """
        ...

    async def reserve_slot(
        self, job_id: JobId, attempt: int, ranking: Sequence[Candidate], lease_ms: int
    ) -> Placement | Stale:
        """Reserve the first free node of the ranking for the next attempt of a job in CREATED.

        `attempt` is the last attempt made (0 for none), so that two who try at once cannot both succeed. A node that
        still holds an older attempt of the job counts as full.
        """
        ...

    async def advance_job(self, job_id: JobId, attempt: int, node_id: NodeId, to: JobState) -> Moved | Stale:
        """Move a job to DISPATCHED, ACCEPTED or RUNNING, if this attempt at this node is the current one."""
        ...

    async def requeue_job(self, job_id: JobId, attempt: int, *, release: bool) -> Moved | Stale:
        """Back to CREATED: the attempt failed. `release` gives the slot back at once (the node never had the job)."""
        ...

    async def end_job(
        self,
        job_id: JobId,
        attempt: int,
        node_id: NodeId | None,
        to: JobState,
        terminal: Terminal,
        *,
        release: bool,
        keep_ms: int,
    ) -> Moved | Stale:
        """End a job, keeping its terminal message for whoever asks again within `keep_ms`.

        With a node: only if this attempt at this node is the current one. `release` gives its slot back.
        """
        ...

    async def read_job(self, job_id: JobId) -> Job | None:
        """The job, while it is known."""
        ...

    async def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """Give back what an attempt holds at a node. Any number of times; it counts once."""
        ...

    async def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_before_ms: int
    ) -> Slots:
        """The node lives: renew the holds of the jobs it runs. None: it does not say; renew those of live attempts.

        A hold that is not among them, and whose attempt was over before that time, is given back: the node is done
        with it.
        """
        ...

    async def count_slots(self, node_ids: Sequence[NodeId]) -> tuple[int, ...]:
        """How many slots of each node are taken."""
        ...

    async def lapse_slots(self) -> tuple[Lapsed, ...]:
        """Give back every hold whose lease has run out."""
        ...

    # --- sessions

    async def open_session(self, record: SessionRecord, token_digest: bytes) -> None:
        """Remember a session and the digest of the token it can be resumed with."""
        ...

    async def resume_session(
        self, session_id: SessionId, token_digest: bytes, next_digest: bytes
    ) -> Resumed | NoResume:
        """Trade a token for the next one, and take what is parked.

        The old token stays good until `confirm_session`: an answer that was lost on the way locks nobody out.
        """
        ...

    async def confirm_session(self, session_id: SessionId) -> None:
        """The client has its new token: the old one is worth nothing any more."""
        ...

    async def park_terminals(self, session_id: SessionId, parked: Sequence[Parked], keep_ms: int) -> None:
        """The session has no connection: keep these for it, and the session itself, for `keep_ms` from now."""
        ...

    async def close_session(self, session_id: SessionId) -> None:
        """Forget a session and all it has parked."""
        ...

    async def sweep(self) -> None:
        """Forget what has passed its time: ended jobs, sessions that did not come back."""
        ...
