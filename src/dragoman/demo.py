"""Does it work here? A scheduler, or several, and three nodes as processes, real speech and text, real engines."""

from __future__ import annotations

import asyncio
import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dragoman.children import Child, ChildError, Instance, free_port, instances, sharing
from dragoman.client import Audio, Translation, connect
from dragoman.embedded import EmbeddedError, single_valkey
from dragoman.engines import speech

NODES: Final = 3
_READY_S: Final = 60
_REFRESH_MS: Final = 200
_KNOWN_S: Final = 1.0
"""By then every instance has read about the nodes of the others, several times over."""
_TRANSLATION_S: Final = 30


class DemoError(RuntimeError):
    """The demo could not be given; the message says what is missing or what failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that is said, and words that its translation must have."""

    src: str
    tgt: str
    text: str
    must_have: tuple[str, ...]
    is_spoken: bool


SCRIPT: Final = (
    Line(src="en", tgt="pt", text="Good morning, how are you today?", must_have=("bom dia",), is_spoken=True),
    Line(src="en", tgt="pt", text="Can you help me, please?", must_have=("ajudar",), is_spoken=True),
    Line(src="en", tgt="pt", text="My name is John and I live in London.", must_have=("londres",), is_spoken=True),
    Line(src="en", tgt="pt", text="How much does this cost?", must_have=("quanto",), is_spoken=True),
    Line(src="en", tgt="pt", text="I need a doctor.", must_have=("médico",), is_spoken=True),
    Line(src="en", tgt="pt", text="We need to leave tomorrow morning.", must_have=("manhã",), is_spoken=True),
    Line(src="en", tgt="pt", text="Please open the window.", must_have=("janela",), is_spoken=False),
    Line(src="pt", tgt="en", text="Muito obrigado pela sua ajuda.", must_have=("thank", "help"), is_spoken=False),
    Line(src="pt", tgt="en", text="Eu preciso de um médico.", must_have=("doctor",), is_spoken=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a line."""

    line: Line
    translation: Translation
    node_id: str
    node_at: str
    """The instance that the node was connected to."""
    session_at: str
    """The instance that the session was connected to."""

    @property
    def is_understood(self) -> bool:
        """Whether what was heard is what was said, and the translation has the words it must have."""
        has_heard = not self.line.is_spoken or _words(self.translation.recognised) == _words(self.line.text)
        said = " ".join(_words(self.translation.translated))
        return has_heard and all(" ".join(_words(word)) in said for word in self.line.must_have)


def give_demo(folder: Path, tell: Callable[[str], None], *, count: int = 1) -> list[Outcome]:
    """Give the demo; spoken results are saved as WAV files in `folder`. `tell` hears what is going on.

    With a count of more than one, so many instances share their work, and each job is of a session at one instance for
    a node at another. Raises DemoError.
    """
    speak = _speaker()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _fleet(tell, count) as fleet:
            tell("translating")
            said = asyncio.run(_translate(fleet.for_sessions, speak))
            served = _served_by(fleet.running)
    except (ChildError, EmbeddedError) as error:
        raise DemoError(str(error)) from error
    outcomes = []
    for number, (line, (translation, session_at)) in enumerate(zip(SCRIPT, said, strict=True), 1):
        (folder / f"{number}-{line.src}-{line.tgt}.wav").write_bytes(translation.audio)
        node_id = served.get(translation.job_id, "?")
        outcomes.append(
            Outcome(
                line=line,
                translation=translation,
                node_id=node_id,
                node_at=fleet.node_homes.get(node_id, "?"),
                session_at=session_at,
            )
        )
    return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fleet:
    running: tuple[Instance, ...]
    node_homes: dict[str, str]
    """The name of the instance that each node is connected to."""

    @property
    def for_sessions(self) -> tuple[Instance, ...]:
        """The instances that have no nodes; the one instance, if there is one."""
        return _halves(self.running)[1]


@contextmanager
def _fleet(tell: Callable[[str], None], count: int) -> Iterator[_Fleet]:
    """The instances and their nodes, each a process of its own, until the end of the block."""
    settings = [
        'observability.log_format="json"',
        'observability.log_level="debug"',
        # All nodes are this one machine, and it is busy because of them: that is no reason to pass them over.
        "scheduler.load_balancer.resource_threshold=100",
        f"scheduler.phase2.node_snapshot.refresh_interval_ms={_REFRESH_MS}",
    ]
    with ExitStack() as stack:
        tell("starting the scheduler" if count == 1 else f"starting a Valkey and {count} scheduler instances")
        if count > 1:
            settings += sharing([stack.enter_context(single_valkey()).url], is_cluster=False)
        running = stack.enter_context(instances([free_port() for _ in range(count)], settings))
        for instance in running:
            instance.child.wait_healthy(instance.port)
        homes = _halves(running)[0]
        placed = {f"node-{number + 1}": homes[number % len(homes)] for number in range(NODES)}
        for name, home in placed.items():
            node = ["-m", "dragoman", "node", "--engines", "offline", "--id", name, "--url", home.node_url]
            stack.enter_context(Child(name, node))
        tell(f"starting {NODES} nodes, which load their models")
        for name, home in placed.items():
            home.child.wait_for(f'"node_id": "{name}", "status": "ready"', _READY_S)
            tell(f"{name} is ready" if count == 1 else f"{name} is ready at {home.name}")
        if count > 1:
            time.sleep(_KNOWN_S)
        yield _Fleet(running=running, node_homes={name: home.name for name, home in placed.items()})


def _halves(running: tuple[Instance, ...]) -> tuple[tuple[Instance, ...], tuple[Instance, ...]]:
    """The instances for nodes and those for sessions: none is for both, unless there is only one."""
    middle = (len(running) + 1) // 2
    return running[:middle], running[middle:] or running


async def _translate(
    for_sessions: Sequence[Instance], speak: Callable[[str, str], Audio]
) -> list[tuple[Translation, str]]:
    """Say every line, all lines of a direction at once, and wait for every result; and where the session was."""
    found: dict[int, tuple[Translation, str]] = {}
    for turn, (src, tgt) in enumerate(sorted({(line.src, line.tgt) for line in SCRIPT})):
        at = for_sessions[turn % len(for_sessions)]
        lines = [(place, line) for place, line in enumerate(SCRIPT) if (line.src, line.tgt) == (src, tgt)]
        async with connect(at.session_url, src=src, tgt=tgt) as session:
            results = await asyncio.gather(
                *(
                    session.translate(
                        speak(line.text, line.src) if line.is_spoken else line.text,
                        speak=True,
                        timeout_s=_TRANSLATION_S,
                    )
                    for _, line in lines
                )
            )
        found |= {place: (result, at.name) for (place, _), result in zip(lines, results, strict=True)}
    return [found[place] for place in range(len(SCRIPT))]


def _speaker() -> Callable[[str, str], Audio]:
    """Somebody who says the lines: eSpeak NG, as a person with a microphone would."""
    say = speech.speaker()
    if say is None:
        raise DemoError("the demo needs the offline engines: pip install 'dragoman[offline]'")

    def speak(text: str, language: str) -> Audio:
        sound = say(text, language)
        return Audio(data=sound.data, sample_rate=sound.sample_rate)

    return speak


def _served_by(running: Sequence[Instance]) -> dict[str, str]:
    """Which node finished which job, as the log of the session's instance tells."""
    served: dict[str, str] = {}
    for line in (line for instance in running for line in instance.child.said().splitlines()):
        if '"job finished"' in line:
            event = json.loads(line)
            served[event["job_id"]] = event["node_id"]
    return served


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text).lower())
