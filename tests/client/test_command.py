"""Does `dragoman translate` do what its options say?"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dragoman.cli.program import build_program
from dragoman.protocol.session_messages import Utterance
from tests.client.fake_scheduler import WAIT_S, Peer, failure, fake_scheduler, result, serving
from tests.client.test_audio import wav

LANGUAGES = ["--src", "en", "--tgt", "es"]


async def _serve(peer: Peer) -> None:
    """Translate by brackets; speech is always the same, and `fail` fails."""
    await peer.welcome()
    while True:
        asked = await peer.expect(Utterance)
        said = asked.audio.decode() if asked.audio_format == "text" else f"{len(asked.audio)} bytes"
        is_spoken = asked.pipeline is not None and asked.pipeline.use_tts is True
        if said == "fail":
            await peer.send(failure("NO_AVAILABLE_NODE", asked.utterance_index, retryable=True))
        else:
            await peer.send(result(asked, said, tts_audio=b"RIFF spoken" if is_spoken else b""))


def _run(*arguments: str, stdin: str = "") -> Result:
    with serving(_serve) as url:
        return _call(*LANGUAGES, "--url", url, "--timeout", str(WAIT_S), *arguments, stdin=stdin)


def _call(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(
        build_program(), ["translate", *arguments], input=stdin
    )


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "hello.wav"
    file.write_bytes(wav(bytes(320)))
    return file


def test_a_text_prints_its_translation() -> None:
    got = _run("--text", "hello")
    assert (got.exit_code, got.stdout, got.stderr) == (0, "[hello]\n", "")


def test_a_file_prints_what_was_said_and_its_translation(sound: Path) -> None:
    got = _run(str(sound))
    assert (got.exit_code, got.stdout, got.stderr) == (0, "en: 320 bytes\nes: [320 bytes]\n", "")


def test_several_files_and_texts_come_in_their_order(sound: Path) -> None:
    got = _run(str(sound), str(sound), "--text", "first")
    block = f"{sound}\nen: 320 bytes\nes: [320 bytes]\n"
    assert got.stdout == "[first]\n" + 2 * block


def test_lines_of_standard_input_come_in_their_order() -> None:
    lines = [f"line {number}" for number in range(300)]
    got = _run("-", stdin="\n\n".join(lines))
    assert (got.exit_code, got.stdout) == (0, "".join(f"[{line}]\n" for line in lines))


def test_json_is_one_object_for_each_utterance_also_for_a_failed_one() -> None:
    got = _run("-", "--json", stdin="hello\nfail\n")
    told: list[dict[str, Any]] = [json.loads(line) for line in got.stdout.splitlines()]
    assert told[0].items() >= {"source": "line 1", "recognised": "hello", "translated": "[hello]"}.items()
    assert told[0].items() >= {"job_id": "job-0", "utterance_index": 0, "audio_format": None}.items()
    assert told[0]["elapsed_s"] > 0
    assert told[1]["source"] == "line 2"
    assert (told[1]["error"]["code"], told[1]["error"]["retryable"]) == ("NO_AVAILABLE_NODE", True)
    assert got.exit_code == 1


def test_a_failure_is_one_line_on_standard_error_and_the_others_are_done() -> None:
    got = _run("-", stdin="a\nfail\nb\n")
    assert (got.exit_code, got.stdout) == (1, "[a]\n[b]\n")
    assert got.stderr == "line 2: NO_AVAILABLE_NODE: because of the test\n"


def test_spoken_audio_is_saved(tmp_path: Path, sound: Path) -> None:
    out = tmp_path / "out.wav"
    got = _run("--text", "hello", "--save-audio", str(out), "--json")
    assert json.loads(got.stdout)["audio_file"] == str(out)
    assert out.read_bytes() == b"RIFF spoken"
    assert _run(str(sound), str(sound), "--save-audio", str(out)).exit_code == 0
    assert (tmp_path / "out-1.wav").exists()
    assert (tmp_path / "out-2.wav").exists()


def test_audio_that_did_not_come_or_cannot_be_saved_is_a_failure(tmp_path: Path) -> None:
    got = _run("--text", "hello", "--save-audio", str(tmp_path / "out.wav"), "--no-speak")
    assert (got.exit_code, got.stdout) == (1, "[hello]\n")
    assert "no audio came" in got.stderr
    got = _run("--text", "hello", "--save-audio", str(tmp_path / "no" / "out.wav"))
    assert got.exit_code == 1
    assert "No such file or directory" in got.stderr


def test_nobody_there_is_one_line_and_a_failure() -> None:
    async def free_url() -> str:
        async with fake_scheduler() as scheduler:
            return scheduler.url

    url = asyncio.run(free_url())
    got = _call(*LANGUAGES, "--url", url, "--text", "hello")
    assert (got.exit_code, got.stdout) == (1, "")
    assert got.stderr.startswith(url)
    assert got.stderr.count("\n") == 1


def test_texts_that_would_steer_the_terminal_are_printed_harmlessly() -> None:
    assert _run("--text", "a\x1b[2Jb\nc").stdout == "[a [2Jb c]\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*LANGUAGES], "nothing to translate"),
        ([*LANGUAGES, "/no/such.wav"], "/no/such.wav: No such file or directory"),
        ([*LANGUAGES, __file__], "no WAV file of 16-bit PCM"),
        ([*LANGUAGES, "--text", " "], "--text: blank"),
        ([*LANGUAGES, "--text", "\udcff"], "--text: bytes that are no characters"),
        ([*LANGUAGES, "-", "-"], "- given twice"),
        ([*LANGUAGES, "--text", "a", "--url", "http://x"], "wanted one that begins with ws:// or wss://"),
        ([*LANGUAGES, "--text", "a", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["--src", "no language", "--tgt", "es", "--text", "a"], "is no language tag"),
        (["--src", "en", "--tgt", "auto", "--text", "a"], "nothing can be translated into that"),
        (["--src", "en", "--text", "a"], "Missing option '--tgt'"),
    ],
)
def test_wrong_use_ends_with_2_and_says_what_is_wanted(arguments: list[str], said: str) -> None:
    got = _call(*arguments)
    assert got.exit_code == 2
    assert said in got.output
    assert "Traceback" not in got.output


def test_an_empty_standard_input_is_wrong_use() -> None:
    got = _run("-", stdin="\n \n")
    assert got.exit_code == 2
    assert "nothing came on standard input" in got.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_and_a_pipe_that_stays_open_end_the_program_quietly() -> None:
    with serving(_serve) as url:
        command = [sys.executable, "-m", "dragoman", "translate", *LANGUAGES, "--url", url, "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(b"one\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"[one]\n"
            process.stdout.close()
            process.stdin.write(b"two\n")
            process.stdin.flush()
            assert process.wait(WAIT_S) == 1
            assert process.stderr.read() == b""
