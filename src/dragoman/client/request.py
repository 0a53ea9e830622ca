"""What did the program ask for, and what has come of it so far?"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from dragoman.client.audio import Audio
from dragoman.client.errors import DragomanError
from dragoman.client.options import REQUEST_ID_LENGTH_MAX, check_languages
from dragoman.client.patience import Backoff
from dragoman.client.translation import Translation, Update
from dragoman.protocol.fields import Pipeline
from dragoman.protocol.session_messages import Utterance

_UPDATES_MAX: Final = 256
"""Updates that nobody has read; beyond it the oldest go."""
_TEXT_SAMPLE_RATE: Final = 16_000
_RETRY_FIRST_S: Final = 0.2
_RETRY_LAST_S: Final = 5.0
_HEADER_BYTES: Final = 4096
"""More than everything in an utterance's message that is not audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be translated, and how. Raises ValueError for what no scheduler would take."""

    said: str | Audio
    src: str
    tgt: str
    speak: bool | None
    priority: int | None
    deadline_s: float | None

    def __post_init__(self) -> None:
        check_languages(self.src, self.tgt)
        if isinstance(self.said, str):
            if not self.said.strip():
                raise ValueError("the text is blank; wanted something to translate")
            self.said.encode()  # a half character raises UnicodeEncodeError, which is a ValueError
        elif not isinstance(self.said, Audio):
            raise TypeError(f"{type(self.said).__name__} given; wanted a str or an Audio")
        if self.priority is not None and not 0 <= self.priority <= 9:
            raise ValueError(f"priority = {self.priority}: wanted 0 (can wait) to 9 (most urgent)")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"deadline_s = {self.deadline_s}: wanted more than 0")

    @property
    def audio(self) -> bytes:
        """The sound, or the text in UTF-8."""
        return self.said.encode() if isinstance(self.said, str) else self.said.data

    def message_bytes(self, *, is_binary: bool) -> int:
        """At most so long is the message that asks for it."""
        length = len(self.said.encode()) if isinstance(self.said, str) else len(self.said.data)
        return _HEADER_BYTES + (length if is_binary else (length + 2) // 3 * 4)

    def message(self, session_id: str, index: int, request_id: str, deadline_s: float | None) -> Utterance:
        """The message that asks for it; `deadline_s` is what is left of the time it has."""
        is_text = isinstance(self.said, str)
        is_spoken = self.speak if self.speak is not None else not is_text
        return Utterance(
            session_id=session_id,
            utterance_index=index,
            manual_cut=True,
            src_lang=self.src,
            tgt_lang=self.tgt,
            audio=self.audio,
            audio_format="text" if isinstance(self.said, str) else self.said.format,
            sample_rate=_TEXT_SAMPLE_RATE if isinstance(self.said, str) else self.said.sample_rate,
            request_id=request_id,
            deadline_ms=None if deadline_s is None else max(1, int(deadline_s * 1000)),
            priority=self.priority,
            pipeline=Pipeline(use_asr=not is_text, use_nmt=True, use_tts=is_spoken),
        )


class Updates:
    """What is told of utterances on their way, for one reader."""

    def __init__(self) -> None:
        self._unread: deque[Update] = deque(maxlen=_UPDATES_MAX)
        self._change = asyncio.Event()
        self._is_over = False

    def put(self, update: Update) -> None:
        """There is news."""
        self._unread.append(update)
        self._change.set()

    def end(self) -> None:
        """There will be no more."""
        self._is_over = True
        self._change.set()

    async def read(self) -> AsyncIterator[Update]:
        """The news, until there will be no more."""
        while True:
            while self._unread:
                yield self._unread.popleft()
            if self._is_over:
                return
            self._change.clear()
            await self._change.wait()


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """One wish on its way. Times are those of the event loop, in seconds."""

    wish: Wish
    name: str
    asked_s: float
    """When the program asked, by the clock that is exact; that of the event loop may stand still for a while."""
    began_at: float
    give_up_at: float
    outcome: asyncio.Future[Translation]
    updates: Updates = field(default_factory=Updates)
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=_RETRY_FIRST_S, last_s=_RETRY_LAST_S))
    index: int | None = None
    """Its `utterance_index`, once it was sent in this session."""
    job_id: str | None = None
    """Once the scheduler has named it, which says too that it accepted the request."""
    tries: int = 1
    failures: int = 0
    is_withdrawn: bool = False
    is_waiting: bool = False
    """Whether it was refused and goes again later."""
    refusal: DragomanError | None = None
    """Why it goes again."""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The `request_id` of this try: a job that has failed keeps its own for good."""
        return self.name if self.tries == 1 else f"{self.name}~{self.tries}"

    @property
    def deadline_at(self) -> float | None:
        """When its job is of no more use."""
        deadline_s = self.wish.deadline_s
        return None if deadline_s is None else self.began_at + deadline_s


def check_request_id(request_id: str) -> str:
    """The id itself. Raises ValueError for one that would not do."""
    if not 1 <= len(request_id) <= REQUEST_ID_LENGTH_MAX:
        raise ValueError(f"request_id of {len(request_id)} characters; wanted 1 to {REQUEST_ID_LENGTH_MAX}")
    request_id.encode()
    return request_id
