"""How does a program stream what a microphone hears, and read the translations as they come?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from dragoman.client.audio import AudioError
from dragoman.client.errors import DragomanError, SessionEndedError, TimedOutError
from dragoman.client.feed import CHUNK_BYTES_MAX, AudioFeed
from dragoman.client.translation import Translation, Update

_UNREAD_MAX: Final = 1000


class AudioStream:
    """One stream of audio, which the scheduler cuts into utterances: `send` it, and iterate over the Translations.

    The audio is mono PCM, 16 bit signed little endian, at `sample_rate` Hz. Leaving the block finishes the stream;
    results may be read during it and after it, as long as the session is open.

    An utterance that failed raises its DragomanError from the iteration; iterate again to go on with the next.
    """

    def __init__(self, feed: AudioFeed, *, sample_rate: int, timeout_s: float) -> None:
        self.sample_rate = sample_rate
        self._feed = feed
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    async def send(self, pcm: bytes) -> None:
        """Send more audio. Waits while much is on its way, for as long as the connection may take to come back.

        Raises AudioError for half a sample, SessionEndedError after `finish`, and whatever ended the session.
        """
        if len(pcm) % 2:
            raise AudioError(f"{len(pcm)} bytes of audio; wanted an even number, PCM16 has 2 a sample")
        if len(self._feed.outcomes) >= _UNREAD_MAX:
            raise DragomanError(f"{_UNREAD_MAX} results have not been read; read them while you send")
        for start in range(0, len(pcm), CHUNK_BYTES_MAX):
            self._check_open()
            while not self._feed.has_room:
                await self._changed(None)
                self._check_open()
            self._feed.add(bytes(pcm[start : start + CHUNK_BYTES_MAX]), is_final=False)

    def end_utterance(self) -> None:
        """What was sent so far is one utterance, without waiting for a pause."""
        self._check_open()
        self._feed.add(b"", is_final=True)

    def finish(self) -> None:
        """There is no more audio; the iteration ends when all results are there."""
        if not self._feed.is_finished and self._feed.failure is None:
            self._feed.is_finished = True
            self._feed.add(b"", is_final=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Translation:
        """The next translation. After `finish`, raises TimedOutError when none comes within the time-out."""
        feed = self._feed
        give_up_at: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            if feed.outcomes:
                outcome = feed.outcomes.popleft()
                if isinstance(outcome, Translation):
                    return outcome
                raise outcome
            doubt_s = feed.doubt_s
            if doubt_s == 0:
                feed.updates.end()
                raise StopAsyncIteration
            if feed.failure is not None:
                raise feed.failure
            if feed.is_finished and give_up_at is None:
                give_up_at = loop.time() + self._timeout_s
            if give_up_at is not None and loop.time() >= give_up_at:
                raise TimedOutError(f"no result came within {self._timeout_s:g} s after the end of the audio")
            left_s = None if give_up_at is None else give_up_at - loop.time()
            await self._changed(left_s if doubt_s is None else doubt_s)

    async def partials(self) -> AsyncIterator[Update]:
        """What is recognised and how far each utterance has come, until all is there; for one reader."""
        async for update in self._feed.updates.read():
            yield update

    async def _changed(self, wait_s: float | None) -> None:
        self._feed.change.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._feed.change.wait()
        except TimeoutError:
            return

    def _check_open(self) -> None:
        if self._feed.failure is not None:
            raise self._feed.failure
        if self._feed.is_finished:
            raise SessionEndedError("the stream is finished; wanted no more audio")
