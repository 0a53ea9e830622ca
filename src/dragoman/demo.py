"""Does it work here? A scheduler and three nodes as processes, real speech and text through real engines."""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dragoman.children import Child, ChildError, free_port
from dragoman.client import Audio, Translation, connect
from dragoman.engines import speech

NODES: Final = 3
_READY_S: Final = 60
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

    @property
    def is_understood(self) -> bool:
        """Whether what was heard is what was said, and the translation has the words it must have."""
        has_heard = not self.line.is_spoken or _words(self.translation.recognised) == _words(self.line.text)
        said = " ".join(_words(self.translation.translated))
        return has_heard and all(" ".join(_words(word)) in said for word in self.line.must_have)


def give_demo(folder: Path, tell: Callable[[str], None]) -> list[Outcome]:
    """Give the demo; spoken results are saved as WAV files in `folder`. `tell` hears what is going on.

    Raises DemoError.
    """
    speak = _speaker()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _fleet(tell) as (url, scheduler):
            tell("translating")
            translations = asyncio.run(_translate(url, speak))
            served = _served_by(scheduler)
    except ChildError as error:
        raise DemoError(str(error)) from error
    outcomes = []
    for number, (line, translation) in enumerate(zip(SCRIPT, translations, strict=True), 1):
        (folder / f"{number}-{line.src}-{line.tgt}.wav").write_bytes(translation.audio)
        outcomes.append(Outcome(line=line, translation=translation, node_id=served.get(translation.job_id, "?")))
    return outcomes


@contextmanager
def _fleet(tell: Callable[[str], None]) -> Iterator[tuple[str, Child]]:
    """A scheduler and its nodes, each a process of its own, until the end of the block."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    settings = (
        f"server.port={port}",
        'observability.log_format="json"',
        'observability.log_level="debug"',
        # All nodes are this one machine, and it is busy because of them: that is no reason to pass them over.
        "scheduler.load_balancer.resource_threshold=100",
    )
    arguments = ["-m", "dragoman", "serve", *(word for item in settings for word in ("--set", item))]
    with ExitStack() as stack:
        tell("starting the scheduler")
        scheduler = stack.enter_context(Child("scheduler", arguments))
        scheduler.wait_healthy(port)
        for number in range(1, NODES + 1):
            node = ["-m", "dragoman", "node", "--engines", "offline", "--id", f"node-{number}"]
            stack.enter_context(Child(f"node-{number}", [*node, "--url", f"{url}/ws/node"]))
        tell(f"starting {NODES} nodes, which load their models")
        for number in range(1, NODES + 1):
            scheduler.wait_for(f'"node_id": "node-{number}", "status": "ready"', _READY_S)
            tell(f"node-{number} is ready")
        yield f"{url}/ws/session", scheduler


async def _translate(url: str, speak: Callable[[str, str], Audio]) -> list[Translation]:
    """Say every line, all lines of a direction at once, and wait for every result."""
    found: dict[int, Translation] = {}
    for src, tgt in sorted({(line.src, line.tgt) for line in SCRIPT}):
        lines = [(place, line) for place, line in enumerate(SCRIPT) if (line.src, line.tgt) == (src, tgt)]
        async with connect(url, src=src, tgt=tgt) as session:
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
        found |= {place: result for (place, _), result in zip(lines, results, strict=True)}
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


def _served_by(scheduler: Child) -> dict[str, str]:
    """Which node finished which job, as the scheduler's log tells."""
    served: dict[str, str] = {}
    for line in scheduler.said().splitlines():
        if '"job finished"' in line:
            event = json.loads(line)
            served[event["job_id"]] = event["node_id"]
    return served


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", text).lower())
