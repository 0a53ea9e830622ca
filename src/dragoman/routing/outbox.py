"""How do notes get to another instance? Those of one turn of the event loop go together, in one letter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from dragoman.core.ids import InstanceId
from dragoman.protocol.letters import Assign, Note, write_letter, write_note
from dragoman.routing.errands import Errands
from dragoman.store.interface import StoreDownError
from dragoman.store.post import Post, Posting
from dragoman.telemetry.logs import get_logger
from dragoman.telemetry.metrics import Metrics

log = get_logger("post")

_LETTER_BYTES_MAX: Final = 1_000_000
"""A letter with more than one note is not larger."""

OnLost: TypeAlias = Callable[[InstanceId, Note, Posting | None], None]
"""Who it was for, the note, and whether it is sure that it did not get there."""


class Outbox:
    """Letters to the other instances."""

    def __init__(self, store: Post, me: InstanceId, errands: Errands, metrics: Metrics) -> None:
        self._store = store
        self._me = me
        self._errands = errands
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._notes: dict[InstanceId, list[Note]] = {}
        self.on_lost: OnLost = _forget
        """Called for each note that could not be posted."""

    def post(self, to: InstanceId, note: Note) -> None:
        """Write a note to another instance; it leaves at the end of this turn."""
        if not self._notes:
            self._loop.call_soon(self._send)
        self._notes.setdefault(to, []).append(note)

    def _send(self) -> None:
        waiting, self._notes = self._notes, {}
        for to, notes in waiting.items():
            for part in _parts(notes):
                self._errands.run(self._post(to, part), "letter")

    async def _post(self, to: InstanceId, notes: list[tuple[Note, bytes]]) -> None:
        payload = write_letter(self._me, [written for _, written in notes])
        is_new_work = all(isinstance(note, Assign) for note, _ in notes)
        try:
            posting = await self._store.post(to, payload, is_new_work=is_new_work)
        except StoreDownError as error:
            # It may have got there all the same: only the answer is missing.
            posting = None
            log.warning("letter not posted", to=to, notes=len(notes), why=str(error))
        else:
            if posting is Posting.POSTED:
                return
            log.warning("letter not posted", to=to, notes=len(notes), why=f"the inbox is {posting}")
        self._metrics.letters_lost.inc(len(notes))
        for note, _ in notes:
            self.on_lost(to, note, posting)


def _parts(notes: list[Note]) -> Iterator[list[tuple[Note, bytes]]]:
    """Notes in the order of their writing, in letters that are not too large."""
    part: list[tuple[Note, bytes]] = []
    size = 0
    for note in notes:
        written = write_note(note)
        if part and size + len(written) > _LETTER_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append((note, written))
        size += len(written)
    yield part


def _forget(to: InstanceId, note: Note, posting: Posting | None) -> None:
    """Nobody wants to know."""
