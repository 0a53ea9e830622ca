"""What can a program do with an utterance that is under way?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from dragoman.client.request import Request
from dragoman.client.translation import Translation, Update


class Utterance:
    """An utterance under way. It ends at its time-out at the latest, whether somebody waits for it or not."""

    def __init__(self, request: Request, withdraw: Callable[[Request], None]) -> None:
        self._request = request
        self._withdraw = withdraw

    @property
    def request_id(self) -> str:
        """What the program calls it, or what we do."""
        return self._request.name

    @property
    def job_id(self) -> str | None:
        """What the scheduler calls its job, once it has said so."""
        return self._request.job_id

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._request.outcome.done()

    async def result(self) -> Translation:
        """Wait for its end. Raises the DragomanError that it ended in, if it failed."""
        return await asyncio.shield(self._request.outcome)

    async def partials(self) -> AsyncIterator[Update]:
        """What is recognised and how far it has come, until its end; for one reader.

        Ends too when the utterance fails: `result` then says why. Only the latest 256 are kept for a slow reader.
        """
        async for update in self._request.updates.read():
            yield update

    async def cancel(self) -> None:
        """Withdraw it. `result` then raises JobCancelledError, unless the result was on its way already."""
        self._withdraw(self._request)
