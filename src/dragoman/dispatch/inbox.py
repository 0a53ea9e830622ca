"""What do the letters of other instances say, and what is done about it?

Notes are done in the order in which they came, each by itself: one that cannot be read is put aside, one that fails is
tried again with its letter, and put aside when it has failed too often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dragoman.cluster.membership import Membership
from dragoman.core.ids import InstanceId, JobId, NodeId
from dragoman.dispatch.dispatcher import Dispatcher
from dragoman.dispatch.handover import Handover
from dragoman.dispatch.outcomes import FailoverReason
from dragoman.dispatch.rescue import Rescue
from dragoman.dispatch.results import Results
from dragoman.protocol.letters import (
    Assign,
    Ended,
    Freed,
    Hungry,
    Lapsed,
    Leaving,
    NodeFailed,
    NodeSaid,
    NoLetterError,
    Note,
    Probe,
    Probed,
    TellNode,
    TellSession,
    Unreached,
    Withdraw,
    Yield,
    Yielded,
    read_letter,
    read_note,
)
from dragoman.protocol.node_messages import JobResult
from dragoman.routing.errands import Errands, begin_all
from dragoman.store.interface import Hold, StoreDownError
from dragoman.store.post import Letter, Posting
from dragoman.telemetry.logs import get_logger

log = get_logger("post")

CLOSE_POLICY: Final = 1008
_NOTE_TTL_MS: Final = 60_000
"""A note that is older, and has no time of its own, is about something long past."""
_HUNGRY_MAX_MS: Final = 5_000
_RETRIES_MAX: Final = 10_000
_CLOSING_IDLE_MS: Final = 500
_CLOSING_PAUSE_S: Final = 0.05
_IN_HAND_MAX: Final = 1000
"""Letters that are being seen to at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxPolicy:
    """How letters are read. Times in milliseconds."""

    block_ms: int
    count: int
    buries: bool
    """Whether what cannot be delivered is put aside; else it is only counted."""
    deliveries_max: int
    bury_idle_ms: int
    retry_idle_ms: int


class Hunger(NamedTuple):
    """How many jobs wait on an instance, and until when that is believed."""

    until_ms: int
    jobs: int


class Inbox:
    """The letters to this instance, and those of instances that died."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        membership: Membership,
        results: Results,
        rescue: Rescue,
        handover: Handover,
        policy: InboxPolicy,
        errands: Errands,
    ) -> None:
        self._dispatcher = dispatcher
        self._router = dispatcher.router
        self._store = dispatcher.store
        self._metrics = dispatcher.metrics
        self._membership = membership
        self._results = results
        self._rescue = rescue
        self._handover = handover
        self._policy = policy
        self._errands = errands
        self._spent: dict[str, int] = {}
        """Letters that failed as often as they may, by since when."""
        self._left: dict[str, list[bytes]] = {}
        """Of letters that were not seen to whole, the notes that failed."""
        self._acknowledged: dict[InstanceId, list[str]] = {}
        self._in_hand = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._retries: list[tuple[InstanceId, Note]] = []
        self.hungry: dict[InstanceId, Hunger] = {}
        """Instances that want to know of free slots, until when."""
        self.on_probed: Callable[[NodeId, bool | None], None] = _ignore
        self._router.outbox.on_lost = self._lost

    async def read(self) -> None:
        """Read what has come, or wait for something to come; begin to see to it."""
        await self._has_room.wait()
        me = self._router.me
        letters = await self._store.receive(me, self._policy.count, self._policy.block_ms)
        if letters:
            self._metrics.inbox_lag_seconds.set(letters[-1].age_ms / 1000)
        for letter in letters:
            self._errands.run(self.see_to(me, letter), "letter")

    async def see_to(self, inbox: InstanceId, letter: Letter) -> None:
        """See to a letter, and acknowledge it when nothing of it is left to do."""
        self._in_hand += 1
        if self._in_hand >= _IN_HAND_MAX:
            self._has_room.clear()
        try:
            if await self._see_to(inbox, letter):
                self._done(inbox, letter.id)
        finally:
            self._in_hand -= 1
            self._has_room.set()

    async def close(self) -> None:
        """See to what is still there, and let nobody post any more. What fails until then is left to others."""
        me, count = self._router.me, self._policy.count
        while not await self._store.close_inbox(me):
            letters = await self._store.receive(me, count, 0)
            letters = letters or await self._store.unacknowledged(me, me, _CLOSING_IDLE_MS, count)
            for letter in letters:
                await self.see_to(me, letter)
            await asyncio.sleep(_CLOSING_PAUSE_S)

    async def inherit(self, dead: InstanceId) -> None:
        """See to the letters of an instance that died, those too that it had taken out."""
        done = True
        while done:
            letters = await self._store.unacknowledged(dead, self._router.me, 0, self._policy.count)
            seen_to = [letter.id for letter in letters if await self._see_to(dead, letter, is_last=True)]
            self._store.acknowledge(dead, seen_to)
            done = bool(seen_to)

    async def retry(self) -> None:
        """Look for letters that were not seen to, and for notes of ours that could not be posted."""
        me, policy = self._router.me, self._policy
        self._metrics.inbox_pending.set(await self._store.backlog(me))
        letters = await self._store.unacknowledged(me, me, policy.retry_idle_ms, policy.count)
        for letter in letters:
            if letter.deliveries <= policy.deliveries_max or self._is_ripe(letter):
                await self.see_to(me, letter)
        known = {letter.id for letter in letters}
        self._spent = {name: since_ms for name, since_ms in self._spent.items() if name in known}
        await self.post_again()

    async def post_again(self) -> None:
        """Try again what could not be posted."""
        retries, self._retries = self._retries, []
        for to, note in retries:
            await self._again(to, note)

    # --- how

    def _is_ripe(self, letter: Letter) -> bool:
        """Whether a letter that failed as often as it may has lain long enough to be tried for the last time."""
        now_ms = self._dispatcher.clock.now_ms()
        return now_ms - self._spent.setdefault(letter.id, now_ms) >= self._policy.bury_idle_ms

    async def _see_to(self, inbox: InstanceId, letter: Letter, *, is_last: bool = False) -> bool:
        """See to a letter. False when something in it failed, and should be tried again."""
        try:
            sender, notes = read_letter(letter.payload)
        except NoLetterError as error:
            await self._bury(inbox, letter, letter.payload or b"", str(error))
            return True
        if letter.id in self._left:
            notes = self._left[letter.id]
        # All are begun, in their order, before any is waited for: what comes later overtakes nothing.
        reasons = await begin_all([self._do(inbox, sender, written, letter) for written in notes])
        is_last = is_last or letter.deliveries > self._policy.deliveries_max
        left: list[bytes] = []
        for written, reason in zip(notes, reasons, strict=True):
            if reason is None:
                continue
            if is_last or reason.startswith("not a note"):
                await self._bury(inbox, letter, written, reason)
            else:
                left.append(written)
        if left:
            self._left[letter.id] = left
            if len(self._left) > _IN_HAND_MAX:
                del self._left[next(iter(self._left))]
        else:
            self._left.pop(letter.id, None)
        return not left

    def _done(self, inbox: InstanceId, letter_id: str) -> None:
        """Note that a letter was seen to; those of one turn are acknowledged together."""
        if not self._acknowledged:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._acknowledged.setdefault(inbox, []).append(letter_id)

    def _acknowledge(self) -> None:
        acknowledged, self._acknowledged = self._acknowledged, {}
        for inbox, ids in acknowledged.items():
            self._store.acknowledge(inbox, ids)

    async def _do(self, inbox: InstanceId, sender: InstanceId, written: bytes, letter: Letter) -> str | None:
        """Do what a note says. Answers why that failed; None when it did not."""
        try:
            note = read_note(written)
        except NoLetterError as error:
            return str(error)
        ttl_ms = note.ttl_ms if isinstance(note, Assign) else _NOTE_TTL_MS
        if letter.age_ms > ttl_ms and not isinstance(note, Ended | NodeSaid):
            self._metrics.notes_expired.inc()
            return None
        try:
            await self._obey(inbox, sender, note)
        except StoreDownError as error:
            log.warning("note not done, the store is down", note=type(note).__name__, sender=sender)
            return f"StoreDownError: {error}"
        except Exception as error:  # one bad note must not stop the inbox
            log.exception("note failed", note=type(note).__name__, sender=sender, letter=letter.id)
            return f"{type(error).__name__}: {error}"
        return None

    async def _obey(self, inbox: InstanceId, sender: InstanceId, note: Note) -> None:  # noqa: C901  # one line for each kind
        match note:
            case Assign():
                self._assign(sender, note, is_inherited=inbox != self._router.me)
            case NodeSaid(node_id, message):
                await self._results.take(node_id, message)
            case Ended(session_id, job_id, index, terminal):
                # Who wrote believed it to be here. If it is not, only the store knows where it is.
                self._router.forget_home(session_id)
                due_ms = await self._router.deliver(session_id, job_id, index, terminal)
                self._dispatcher.watch_results(session_id, due_ms)
            case Unreached():
                await self._unreached(sender, note)
            case TellNode(node_id, message):
                if node_id in self._router.nodes:
                    self._router.tell_node(node_id, message)
            case TellSession(session_id, message):
                session = self._router.sessions.get(session_id)
                if session is not None:
                    session.tell(message)
            case Yield(session_id):
                if inbox == self._router.me:
                    await self._handover.give_up(session_id, sender)
                elif sender != self._router.me:
                    # It was meant for an instance that died, and asks for what died with that.
                    self._router.outbox.post(sender, Yielded(session_id, is_known=False))
            case Yielded():
                self._handover.given(note)
            case Withdraw(session_id, job_id):
                await self._dispatcher.cancel(session_id, job_id)
            case Lapsed(job_id, attempt, node_id):
                await self._rescue.lapsed(Hold(node_id, job_id, attempt))
            case Hungry(for_ms, jobs):
                until_ms = self._dispatcher.clock.now_ms() + min(for_ms, _HUNGRY_MAX_MS)
                self.hungry[sender] = Hunger(until_ms, max(jobs, 1))
                self._dispatcher.freed.update(self._router.nodes)
                self._dispatcher.is_hungry.set()
            case Leaving():
                self._router.is_leaving(sender)
            case Freed(used):
                await self._freed(used)
            case Probe(node_id):
                self._errands.run(self._probe(sender, node_id), "probe")
            case Probed(node_id, is_alive):
                self.on_probed(node_id, is_alive)
            case NodeFailed(node_id):
                if node_id in self._router.nodes:
                    self._membership.job_ended(node_id, is_good=False)

    def _assign(self, sender: InstanceId, note: Assign, *, is_inherited: bool) -> None:
        """Give a node a job of another instance. One that died may have done that already."""
        mailbox = self._router.nodes.get(note.node_id)
        now_ms = self._dispatcher.clock.now_ms()
        job_id, attempt = JobId(note.job.job_id), note.job.attempt_id
        if mailbox is None or is_inherited:
            unreached = Unreached(job_id, attempt, note.node_id, had_it=is_inherited, is_gone=mailbox is None)
            self._router.outbox.post(sender, unreached)
            return
        known = mailbox.assignments.get(job_id)
        if known is not None and known.attempt >= attempt:
            return
        since_ms = now_ms - self._dispatcher.policy.lease_ms
        if mailbox.has_room(since_ms) and mailbox.assign(note.job, now_ms, sender):
            self._dispatcher.view.add_used(note.node_id)
            return
        self._router.outbox.post(sender, Unreached(job_id, attempt, note.node_id, had_it=False))

    async def _unreached(self, home: InstanceId, note: Unreached) -> None:
        if note.is_gone:
            self._membership.not_at(note.node_id, home)
        job = self._dispatcher.jobs.get(note.job_id)
        if job is None or job.attempt != note.attempt or job.node_id != note.node_id:
            return
        reason = FailoverReason.NODE_LOST if note.had_it else FailoverReason.UNREACHABLE
        await self._dispatcher.fail_over(job, reason, release=not note.had_it)

    async def _freed(self, used: tuple[tuple[NodeId, int], ...]) -> None:
        for node_id, count in used:
            if node_id in self._router.nodes:
                await self._results.has_room(node_id)
            elif node_id in self._router.node_homes:
                self._dispatcher.view.set_used(node_id, count)
                await self._dispatcher.serve_waiting(node_id)

    async def _probe(self, sender: InstanceId, node_id: NodeId) -> None:
        """Another instance is asked for by a node that may be connected here: does it live here?"""
        mailbox = self._router.nodes.get(node_id)
        if mailbox is None:
            self._router.outbox.post(sender, Probed(node_id, is_alive=False))
            return
        self._router.outbox.post(sender, Probed(node_id, is_alive=None))
        is_alive = await mailbox.is_alive()
        self._router.outbox.post(sender, Probed(node_id, is_alive))
        holder = await self._store.node_owner(node_id)
        if not is_alive or holder not in (None, self._router.me):
            mailbox.close(CLOSE_POLICY, "the node connected elsewhere")

    def _lost(self, to: InstanceId, note: Note, posting: Posting | None) -> None:
        """A note could not be posted. What must not be lost is tried again; a job that got nowhere moves."""
        match note:
            case Assign():
                attempt = note.job.attempt_id
                unreached = Unreached(
                    JobId(note.job.job_id),
                    attempt,
                    note.node_id,
                    had_it=posting is None,
                    is_gone=posting is Posting.GONE,
                )
                self._errands.run(self._again(to, unreached), "assignment lost")
            case Ended() if posting is Posting.GONE:
                self._errands.run(self._again(to, note, is_gone=True), "end lost")
            case NodeSaid(_, JobResult()) | Ended() | Unreached() | Withdraw():
                self._keep(to, note)
            case _:
                log.debug("note dropped", note=type(note).__name__, to=to)

    def _keep(self, to: InstanceId, note: Note) -> None:
        if len(self._retries) < _RETRIES_MAX:
            self._retries.append((to, note))
        else:
            log.error("too many notes wait to be posted, one was dropped", note=type(note).__name__)

    async def _again(self, to: InstanceId, note: Note, *, is_gone: bool = False) -> None:
        """Try again what could not be posted; who it is for may have changed."""
        try:
            match note:
                case Unreached() if self._dispatcher.jobs.get(note.job_id) is not None:
                    await self._unreached(to, note)
                case Ended(session_id, job_id, index, terminal):
                    await self._router.deliver(session_id, job_id, index, terminal, gone=to if is_gone else None)
                case NodeSaid(_, JobResult(job_id=name)) | Unreached(job_id=name) | Withdraw(job_id=name):
                    owner = await self._owner_of(JobId(name), to)
                    if owner != self._router.me:
                        self._router.outbox.post(owner, note)
                    elif isinstance(note, NodeSaid):
                        await self._results.take(note.node_id, note.message)
                case _:
                    pass
        except StoreDownError:
            self._keep(to, note)

    async def _owner_of(self, job_id: JobId, before: InstanceId) -> InstanceId:
        """Who sees to a job. If the store has lost it, its owner may not have written it again yet."""
        job = await self._store.read_job(job_id)
        if job is not None:
            return job.owner
        return before if before in self._router.peers else self._router.me

    async def _bury(self, inbox: InstanceId, letter: Letter, payload: bytes, reason: str) -> None:
        log.error("note put aside", letter=letter.id, reason=reason, deliveries=letter.deliveries)
        self._metrics.dead_letters.inc()
        if self._policy.buries:
            await self._store.bury(inbox, letter, payload, reason)


def _ignore(node_id: NodeId, is_alive: bool | None) -> None:  # noqa: FBT001
    """Nobody asked."""
