"""How does one get a translation without writing a program?"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dragoman.cli.outcome import FAILED, WRONG_USE, CommandError

if TYPE_CHECKING:
    from dragoman.client import Audio, DragomanError, Session, Translation, Utterance

_STDIN: Final = "-"
_READ_BYTES: Final = 65_536
_LINE_BYTES_MAX: Final = 1024 * 1024
_AHEAD_MAX: Final = 64
"""Utterances under way that are not printed yet."""


def translate(
    src: Annotated[str, typer.Option(help="The language that is spoken or written, or auto.")],
    tgt: Annotated[str, typer.Option(help="The language to translate into.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.wav]...|-", help="WAV files of 16-bit PCM; - for lines of text."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to translate; may be given several times.")] = None,
    url: Annotated[
        str, typer.Option(help="Where the scheduler listens for sessions.")
    ] = "ws://127.0.0.1:5010/ws/session",
    token: Annotated[
        str | None, typer.Option(envvar="DRAGOMAN_TOKEN", help="The secret that the scheduler wants of clients.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant that the session belongs to.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for each utterance.")] = 60,
    speak: Annotated[
        bool | None,
        typer.Option("--speak/--no-speak", help="Whether to have it spoken; else of audio yes, of text no."),
    ] = None,
    save_audio: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to put what is spoken; numbered when there are several."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each utterance.")] = False,
) -> None:
    """Translate speech or text, and print it in the order it was given.

    Example: dragoman translate --src en --tgt es hello.wav --save-audio hola.wav
    """
    from dragoman import loop

    logging.getLogger("picows").setLevel(logging.CRITICAL)  # what it warns of is told in words of ours

    errand = _Errand(
        src=src,
        tgt=tgt,
        url=url,
        token=token,
        tenant=tenant,
        timeout_s=timeout_s,
        speak=True if save_audio is not None and speak is None else speak,
    )
    given = _read_given(files or [], text or [])
    session = _make_session(errand)
    printer = _Printer(src, tgt, save_audio, is_json=as_json, is_single=len(given) == 1 and given[0].label != _STDIN)
    try:
        loop.run(_run(errand, session, given, printer))
    except BrokenPipeError:
        # Whoever read what we print has gone; nothing is left to be said to them at the end of the program either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    if printer.count == 0:
        raise CommandError("nothing came on standard input; wanted lines of text", WRONG_USE)
    if printer.failed_count:
        raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """What is the same for every utterance."""

    src: str
    tgt: str
    url: str
    token: str | None
    tenant: str | None
    timeout_s: float
    speak: bool | None


@dataclass(frozen=True, slots=True)
class _Given:
    """One thing to translate; standard input is many."""

    label: str
    said: str | Audio


@dataclass(frozen=True, slots=True)
class _Asked:
    """What became of it."""

    given: _Given
    answer: Utterance | DragomanError


def _read_given(files: list[str], texts: list[str]) -> list[_Given]:
    """All that is to be translated. Ends the program where something is wrong with it, before anything is sent."""
    given = [_Given("text", text) for text in texts]
    for text in texts:
        if not text.strip():
            raise CommandError("--text: blank; wanted something to translate", WRONG_USE)
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise CommandError(
                "--text: bytes that are no characters; wanted text in the encoding of the terminal", WRONG_USE
            )
    if files.count(_STDIN) > 1:
        raise CommandError("- given twice; standard input can be read once", WRONG_USE)
    given.extend(_Given(name, "") if name == _STDIN else _read_file(name) for name in files)
    if not given:
        raise CommandError("nothing to translate; wanted WAV files, --text or - for lines on standard input", WRONG_USE)
    return given


def _read_file(name: str) -> _Given:
    from dragoman.client import Audio, AudioError

    try:
        return _Given(name, Audio.from_wav(Path(name)))
    except AudioError as error:
        raise CommandError(f"{name}: {error}", WRONG_USE) from error
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror or error}", WRONG_USE) from error


def _make_session(errand: _Errand) -> Session:
    from dragoman.client import RetryPolicy, connect

    try:
        return connect(
            errand.url,
            src=errand.src,
            tgt=errand.tgt,
            token=errand.token,
            tenant=errand.tenant,
            timeout_s=errand.timeout_s,
            # A program can wait for nodes that start; somebody at a terminal wants to know that there are none.
            retry=RetryPolicy(waits_for_nodes=False),
        )
    except ValueError as error:
        raise CommandError(str(error), WRONG_USE) from error


async def _run(errand: _Errand, session: Session, given: list[_Given], printer: _Printer) -> None:
    """Ask for everything, many at a time, and print the answers in the order of the questions."""
    from dragoman.client import DragomanError

    asked: asyncio.Queue[_Asked | None] = asyncio.Queue(_AHEAD_MAX)
    hangup: BrokenPipeError | None = None
    try:
        async with session, asyncio.TaskGroup() as group:
            asking = group.create_task(_ask(errand, session, given, asked), name="asking")
            with _spinner(printer, is_wanted=all(item.label != _STDIN for item in given)) as hidden:
                while (item := await asked.get()) is not None:
                    answer = await _answer(item)
                    with hidden():
                        printer.show(item.given, answer)
            await asking
    except* BrokenPipeError as broken:
        hangup = BrokenPipeError(str(broken))
    except* DragomanError as failed:
        # Only opening the session raises this here.
        printer.complain(errand.url, failed.exceptions[0])
    if hangup is not None:
        raise hangup


async def _ask(errand: _Errand, session: Session, given: list[_Given], asked: asyncio.Queue[_Asked | None]) -> None:
    from dragoman.client import DragomanError

    for source in given:
        async for item in _lines() if source.label == _STDIN else _one(source):
            answer: Utterance | DragomanError
            try:
                answer = await session.submit(item.said, speak=errand.speak)
            except DragomanError as error:
                answer = error
            await asked.put(_Asked(item, answer))
    await asked.put(None)


async def _answer(asked: _Asked) -> Translation | DragomanError:
    from dragoman.client import DragomanError

    if isinstance(asked.answer, DragomanError):
        return asked.answer
    try:
        return await asked.answer.result()
    except DragomanError as error:
        return error


async def _one(given: _Given) -> AsyncIterator[_Given]:
    yield given


async def _lines() -> AsyncIterator[_Given]:
    """The lines of standard input that are not blank, each as soon as it is there."""
    stream = typer.get_binary_stream("stdin")
    # The raw stream has no lock that a thread could hold while the program ends.
    read: Callable[[int], bytes | None] = getattr(stream, "raw", stream).read
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(4)
    threading.Thread(target=_pump, args=(read, pieces, loop), daemon=True, name="standard input").start()
    begun, number, is_open = b"", 0, True
    while is_open:
        piece = await pieces.get()
        is_open = bool(piece)
        *whole, begun = (begun + (piece or b"\n")).split(b"\n")
        if len(begun) > _LINE_BYTES_MAX:
            whole, begun, is_open = [*whole, begun], b"", False
        for line in whole:
            number += 1
            text = line.decode(errors="replace").strip()
            if text:
                yield _Given(f"line {number}", text)


def _pump(read: Callable[[int], bytes | None], pieces: asyncio.Queue[bytes], loop: asyncio.AbstractEventLoop) -> None:
    piece: bytes | None = b" "
    while piece:
        piece = read(_READ_BYTES)
        try:
            asyncio.run_coroutine_threadsafe(pieces.put(piece or b""), loop).result()
        except RuntimeError:
            return  # the loop is closed: nobody listens any more


@contextmanager
def _spinner(printer: _Printer, *, is_wanted: bool) -> Iterator[Callable[[], Any]]:
    """Something that moves on standard error, if that is a terminal; what is given hides it while one prints."""
    from contextlib import nullcontext

    if not is_wanted or not sys.stderr.isatty():
        yield nullcontext
        return
    from rich.console import Console

    status = Console(stderr=True).status("translating…")

    @contextmanager
    def hidden() -> Iterator[None]:
        status.stop()
        yield
        status.update(f"translating… {printer.count} done")
        status.start()

    with status:
        yield hidden


class _Printer:
    """Says what came of each utterance: on standard output what went well, on standard error what did not."""

    def __init__(self, src: str, tgt: str, save_audio: Path | None, *, is_json: bool, is_single: bool) -> None:
        self.count = 0
        self.failed_count = 0
        self._src = src
        self._tgt = tgt
        self._save_audio = save_audio
        self._is_json = is_json
        self._is_single = is_single

    def show(self, given: _Given, answer: Translation | DragomanError) -> None:
        """Print one answer."""
        from dragoman.client import DragomanError

        self.count += 1
        if isinstance(answer, DragomanError):
            self._complain_of(given, answer)
            return
        saved = self._save(given, answer)
        if self._is_json:
            self._print_json(_as_json(given, answer, saved))
        elif isinstance(given.said, str):
            self._print(_printable(answer.translated))
        else:
            if not self._is_single:
                self._print(given.label)
            self._print(f"{self._src}: {_printable(answer.recognised)}\n{self._tgt}: {_printable(answer.translated)}")

    def complain(self, label: str, error: BaseException) -> None:
        """Say what went wrong, in one line."""
        self.count = max(self.count, 1)
        self.failed_count += 1
        text = str(error)
        typer.echo(_printable(text if text.startswith(label) else f"{label}: {text}"), err=True)

    def _complain_of(self, given: _Given, error: DragomanError) -> None:
        self.complain(given.label, error)
        if self._is_json:
            code = getattr(error, "code", None)
            told = {"code": code, "message": str(error), "retryable": error.retryable}
            self._print_json({"source": given.label, "error": told})

    def _save(self, given: _Given, answer: Translation) -> Path | None:
        """Write what is spoken to a file; the file, or None if there is none."""
        path = self._save_audio
        if path is None:
            return None
        if not self._is_single:
            path = path.with_stem(f"{path.stem}-{self.count}")
        if not answer.audio:
            self.complain(given.label, ValueError(f"no audio came, {path} is not written"))
            return None
        try:
            path.write_bytes(answer.audio)
        except OSError as error:
            self.complain(str(path), ValueError(error.strerror or str(error)))
            return None
        return path

    def _print_json(self, shown: dict[str, Any]) -> None:
        self._print(json.dumps(shown, ensure_ascii=False, default=str))

    def _print(self, text: str) -> None:
        typer.echo(text)


def _as_json(given: _Given, answer: Translation, saved: Path | None) -> dict[str, Any]:
    return {
        "source": given.label,
        "recognised": answer.recognised,
        "translated": answer.translated,
        "job_id": answer.job_id,
        "utterance_index": answer.utterance_index,
        "elapsed_s": None if answer.elapsed_s is None else round(answer.elapsed_s, 4),
        "service_timings": answer.service_timings,
        "network_timings": answer.network_timings,
        "audio_format": answer.audio_format if answer.audio else None,
        "audio_bytes": len(answer.audio),
        "audio_file": None if saved is None else str(saved),
    }


def _printable(text: str) -> str:
    """A text that cannot steer the terminal, in one line: it comes from nodes, and anybody may run one."""
    return "".join(char if char.isprintable() else " " for char in text)
