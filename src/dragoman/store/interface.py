"""What does the program ask of its memory?

Each verb is one atomic step on the job, the node's slots or the session that it names. A store compares and sets; it
decides nothing and calls nobody. Expected outcomes are values. Times are milliseconds; leases run on the store's own
clock. Verbs that are no coroutines are notes: they leave at once, in order, and nobody waits for an answer.

Slots: a hold is a claim of one job's attempt on one unit of a node's concurrency, with a deadline. Holds are the only
authority on capacity, whatever any view believes. A hold outlives its job while the node may still be at work on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId, TenantId
from dragoman.core.job import Candidate, JobRequest
from dragoman.core.lifecycle import JobState
from dragoman.protocol.session_messages import SessionInit, Terminal
from dragoman.store.post import Post
from dragoman.store.registry import Registry


class StoreDownError(ConnectionError):
    """The memory cannot be reached, or may not be used now: nothing new may be accepted."""


class Job(Struct, frozen=True):
    """A job as the store knows it."""

    job_id: JobId
    owner: InstanceId
    """The instance that sees to it."""
    request: JobRequest | None
    """None once it ended: nobody needs the audio again. Its times are those of the reader's clock."""
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


class Restored(StrEnum):
    """What came of writing again what an instance knows of a job."""

    RESTORED = "restored"
    KEPT = "kept"
    """The store knew it already."""
    TAKEN = "taken"
    """Another instance sees to it by now, or it has ended."""


class Slots(Struct, frozen=True):
    """How many slots of a node are taken after a step, and whose the step gave back."""

    used: int
    released: tuple[tuple[JobId, int], ...] = ()


class Hold(NamedTuple):
    """One job's attempt on one slot of a node."""

    node_id: NodeId
    job_id: JobId
    attempt: int


# --- sessions

NOBODY: Final = ""
ANYBODY: Final = "*"


class SessionRecord(Struct, frozen=True, kw_only=True):
    """What a resume on any instance needs to know of a session."""

    session_id: SessionId
    tenant_id: TenantId | None
    init: SessionInit
    trace_id: str


class Parked(Struct, frozen=True, kw_only=True):
    """A terminal message that its session has not had, or may not have had."""

    serial: int
    """Its number among the terminal messages of the session, from 1; 0: it was never on its way, and has none."""
    message: Terminal


class Owed(Struct, frozen=True):
    """A job of which the client is not known to have had the end."""

    job_id: JobId
    index: int
    serial: int
    """The number of the terminal message with its end; 0 while none was sent."""


class Place(Struct, frozen=True):
    """Where a session stands: what is needed to go on with it elsewhere."""

    serial: int = 0
    """The number of its last terminal message."""
    next_index: int = 0
    """The first utterance index whose end did not go out in its turn."""
    next_cut: int = 0
    """The number of the next utterance cut out of its stream."""
    last_seq: int = -1
    """The last chunk of its stream that went into an utterance."""


class Resumed(Struct, frozen=True, kw_only=True):
    """The session goes on; here is what it has not had."""

    record: SessionRecord
    parked: tuple[Parked, ...] = ()
    owed: tuple[Owed, ...] = ()
    place: Place = Place()
    previous: InstanceId | None = None
    """Who held it before, if anybody."""


class NoResume(StrEnum):
    """Why a session does not go on."""

    UNKNOWN = "unknown"
    WRONG_TOKEN = "wrong_token"  # noqa: S105  # the name of an outcome, not a secret


class Jobs(Protocol):
    """Jobs, and the slots of nodes."""

    async def open_job(
        self, request: JobRequest, owner: InstanceId, ranking: Sequence[Candidate], lease_ms: int
    ) -> Known | Placement:
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

        With a node: only if this attempt at this node is the current one. `release` says that the node is done with
        this attempt: its slot is given back whatever comes of the move.
        """
        ...

    async def read_job(self, job_id: JobId) -> Job | None:
        """The job, while it is known."""
        ...

    async def adopt_job(self, job_id: JobId, dead: InstanceId, owner: InstanceId) -> Job | None:
        """See to a job in place of an instance that died, unless somebody does already. The job as it is then."""
        ...

    async def restore_job(
        self, request: JobRequest, owner: InstanceId, state: JobState, attempt: int, node_id: NodeId | None
    ) -> Restored:
        """Write again what the owner knows of a job: the store may have lost its last writes, or all of them.

        Only what is missing or behind is written; an attempt's number never goes back.
        """
        ...

    async def release_slot(self, node_id: NodeId, job_id: JobId, attempt: int) -> Release:
        """Give back what an attempt holds at a node. Any number of times; it counts once."""
        ...

    async def restore_slots(self, node_id: NodeId, holds: Sequence[tuple[JobId, int]], lease_ms: int) -> Slots:
        """Write again the holds that a node's instance knows of, where they are missing."""
        ...

    async def renew_slots(
        self, node_id: NodeId, running: Sequence[JobId] | None, lease_ms: int, *, orphaned_for_ms: int
    ) -> Slots:
        """The node lives: renew the holds of the jobs it runs. None: it does not say; renew those of live attempts.

        A hold that is not among them, and whose attempt has been over for that long, is given back: the node is done
        with it.
        """
        ...

    async def count_slots(self, node_ids: Sequence[NodeId]) -> tuple[int, ...]:
        """How many slots of each node are taken."""
        ...

    async def lapse_slots(self) -> tuple[Hold, ...]:
        """Give back every hold whose lease has run out."""
        ...

    async def idle_holds(self, node_ids: Sequence[NodeId]) -> tuple[Hold, ...]:
        """Holds at these nodes that count as live, while their job is not at this node with this attempt."""
        ...

    async def orphan_slot(self, hold: Hold, lease_ms: int) -> None:
        """The attempt is over: the node gives the slot back when it says so, the lease at the latest from now."""
        ...


class Sessions(Protocol):
    """Sessions, and what they are owed."""

    async def open_session(self, record: SessionRecord, token_digest: bytes, owner: InstanceId) -> None:
        """Remember a session, who holds it, and the digest of the token it can be resumed with."""
        ...

    async def resume_session(
        self, session_id: SessionId, token_digest: bytes, next_digest: bytes, owner: InstanceId
    ) -> Resumed | NoResume:
        """Trade a token for the next one, take the session over, and read what it is owed.

        The old token stays good until `confirm_session`: an answer that was lost on the way locks nobody out.
        """
        ...

    async def confirm_session(self, session_id: SessionId) -> None:
        """The client has its new token: the old one is worth nothing any more."""
        ...

    async def park_terminals(
        self,
        session_id: SessionId,
        owner: InstanceId | None,
        parked: Sequence[Parked],
        keep_ms: int,
        *,
        seen: str = ANYBODY,
    ) -> bool:
        """The session has no connection: keep these for it, and the session itself, for `keep_ms` from now.

        False, and nothing kept, when `owner` does not hold it any more. None: nobody does, keep them all the same, if
        it is still held by who was `seen` to (NOBODY, or a dead instance): else somebody has resumed it meanwhile.
        """
        ...

    async def restore_session(
        self, record: SessionRecord, token_digest: bytes, owner: InstanceId, place: Place
    ) -> bool:
        """Write again what the holder knows of a session, where it is missing. False: another instance holds it."""
        ...

    async def has_parked(self, session_id: SessionId) -> bool:
        """Whether something is kept for a session, that the next resume brings."""
        ...

    async def session_owner(self, session_id: SessionId) -> InstanceId | None:
        """Who holds a session."""
        ...

    async def owed_jobs(self, session_id: SessionId) -> tuple[Owed, ...]:
        """The jobs of a session of which the client is not known to have had the end."""
        ...

    async def close_session(self, session_id: SessionId, owner: InstanceId) -> None:
        """Forget a session and all it is owed, unless another instance holds it."""
        ...

    def owe(self, session_id: SessionId, job_id: JobId, index: int) -> None:
        """The session is owed the end of a job."""
        ...

    def note_place(self, session_id: SessionId, place: Place, sent: Sequence[Owed]) -> None:
        """Terminal messages were sent: where the session stands now."""
        ...

    def settle(self, session_id: SessionId, job_ids: Sequence[JobId]) -> None:
        """The client has had the ends of these jobs."""
        ...


class Store(Jobs, Sessions, Registry, Post, Protocol):
    """The seam. MemoryStore and the Valkey store pass one contract suite."""

    async def open(self) -> None:
        """Make it ready for use. Raises StoreDownError, which says what is wrong."""
        ...

    async def close(self) -> None:
        """Let go of what it uses."""
        ...

    def flush(self) -> None:
        """Let the notes of this turn leave now: what is said to a client must not be ahead of what is noted of it."""
        ...

    async def sweep(self) -> None:
        """Forget what has passed its time: ended jobs, sessions that did not come back."""
        ...
