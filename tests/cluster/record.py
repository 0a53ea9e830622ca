"""What did clients and nodes see, and was it right? The judge knows nothing but what went over their sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from dragoman.protocol.fields import Error
from dragoman.protocol.session_messages import MissingResult, Terminal, TranslationResult

ASK_AGAIN: Final = frozenset({"NO_AVAILABLE_NODE", "QUEUE_FULL", "SCHEDULER_DRAINING", "SCHEDULER_DEPENDENCY_DOWN"})
"""Refusals: the same request may be asked again."""

_CROSSING_S: Final = 0.05
"""What comes so soon after something was said may have been on its way already."""
_SLOW_S: Final = 1.5
"""A request that takes longer, or was refused, was in trouble."""


@dataclass(eq=False)
class Request:
    """One thing that a client wants to be done, however often it has to ask."""

    session: str
    index: int
    request_id: str
    text: str
    began_s: float
    is_open: bool = False
    """Whether it was asked and the answer has not come."""
    repeated_s: float | None = None
    """When it was asked again because nothing was heard, and that has had no answer of its own."""
    refusals: list[str] = field(default_factory=list)
    end: Terminal | None = None
    ended_s: float = 0.0
    told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def was_in_trouble(self) -> bool:
        """Whether its client noticed that something was wrong."""
        return bool(self.refusals) or self.ended_s - self.began_s > _SLOW_S or isinstance(self.end, Error)

    def __str__(self) -> str:
        return f"{self.session}/{self.index} asked at {self.began_s:.3f}, refused {self.refusals}, end {self.end}"


class Record:
    """Everything that happened."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.requests: list[Request] = []
        self.assignments: Counter[tuple[str, int]] = Counter()
        """Jobs at nodes: how often each attempt was given."""
        self.jobs: Counter[str] = Counter()
        """Jobs at nodes, by how many attempts."""
        self.wrongs: list[str] = []

    def now_s(self) -> float:
        """The time."""
        return self._loop.time()

    def ask(self, session: str, index: int, request_id: str, text: str) -> Request:
        """A client wants something."""
        request = Request(session, index, request_id, text, self.now_s())
        self.requests.append(request)
        return request

    def repeat(self, request: Request) -> None:
        """A client has heard nothing of something, and asks again."""
        request.repeated_s = self.now_s()

    def end(self, request: Request, terminal: Terminal) -> None:
        """A client was told how something ended."""
        if not request.is_open and self._is_echo(request, terminal):
            return
        if not request.is_open:
            self.wrongs.append(f"doubled: {request}, and once more {terminal}")
            return
        request.is_open = False
        if isinstance(terminal, Error) and terminal.code in ASK_AGAIN:
            request.refusals.append(terminal.code)
            return
        if isinstance(terminal, TranslationResult) and terminal.text_translated != request.text.upper():
            self.wrongs.append(f"mixed up: {request}, and was told {terminal}")
        if request.end is not None and request.end != terminal:
            self.wrongs.append(f"another answer to the same: {request}, and then {terminal}")
        request.end = terminal
        request.ended_s = self.now_s()
        request.told.set()

    def _is_echo(self, request: Request, terminal: Terminal) -> bool:
        """Whether this answers a repeat that was on its way when the end came. Who asks twice may be answered twice."""
        repeated_s, request.repeated_s = request.repeated_s, None
        crossed = repeated_s is not None and request.ended_s - repeated_s < _CROSSING_S
        return crossed and terminal == request.end

    def given(self, node_id: str, job_id: str, attempt: int, running: int, slots: int) -> None:
        """A node was given a job."""
        self.jobs[job_id] += 1
        self.assignments[(job_id, attempt)] += 1
        if running > slots:
            self.wrongs.append(f"over-commit: {node_id} runs {running} jobs in {slots} slots")

    # --- judging

    @property
    def refusals(self) -> Counter[str]:
        """Refusals, by code."""
        return Counter(code for request in self.requests for code in request.refusals)

    @property
    def errors(self) -> Counter[str]:
        """Ends that are no result, by code or reason."""
        ends = [request.end for request in self.requests]
        codes = [end.code for end in ends if isinstance(end, Error)]
        return Counter([*codes, *[end.reason for end in ends if isinstance(end, MissingResult)]])

    @property
    def lost(self) -> list[Request]:
        """Requests that nobody has answered."""
        return [request for request in self.requests if request.end is None]

    def troubled_for_s(self, since_s: float) -> float:
        """How long after a fault the last request was in trouble."""
        ends = [it.ended_s for it in self.requests if it.ended_s >= since_s and it.was_in_trouble]
        return max([0.0, *[end_s - since_s for end_s in ends]])

    def figures(self, since_s: float | None = None) -> str:
        """One line for people."""
        good = sum(isinstance(request.end, TranslationResult) for request in self.requests)
        kinds = Counter(wrong.partition(":")[0] for wrong in self.wrongs)
        whole = "" if since_s is None else f", whole again in {self.troubled_for_s(since_s):.1f} s"
        return (
            f"{len(self.requests)} asked, {good} well, errors {dict(self.errors)}, refusals {dict(self.refusals)}, "
            f"lost {len(self.lost)}, wrongs {dict(kinds)}, second attempts {sum(n > 1 for n in self.jobs.values())}"
            f"{whole}"
        )

    def assert_right(self, *, errors: frozenset[str] = frozenset(), refusals: frozenset[str] = frozenset()) -> None:
        """Everything ended, once, well or with one of these errors, and no node had too much."""
        assert self.wrongs == [], "\n".join(self.wrongs[:10])
        assert not self.lost, "\n".join(map(str, self.lost[:10]))
        wrong = [request for request in self.requests if isinstance(request.end, Error | MissingResult)]
        assert set(self.errors) <= errors, "\n".join(map(str, wrong[:10]))
        assert set(self.refusals) <= refusals, self.refusals
