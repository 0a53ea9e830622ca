"""Does `dragoman node` do what its options say?"""

import asyncio
import os
import signal
import sys

import pytest
import typer
from typer.testing import CliRunner

from dragoman.cli.node import node
from dragoman.protocol.node_messages import JobResult
from tests.node.fake_scheduler import WAIT_S, assign, fake_scheduler


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    # The logs of the whole process would go to the runner's standard error, which ends with the command.
    monkeypatch.setattr("dragoman.telemetry.logs.configure_logs", lambda log_format, log_level: None)
    app = typer.Typer()
    app.command()(node)
    return app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engines", "nonsense"], "no engine 'nonsense'"),
        (["--engines", "no.such:thing"], "ModuleNotFoundError"),
        (["--engines", "echo", "--url", "http://x"], "wanted one that begins with ws:// or wss://"),
        (["--slots", "0"], "Invalid value for '--slots'"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line(app: typer.Typer, arguments: list[str], said: str) -> None:
    result = CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(app, arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


_PROGRAM = "import typer; from dragoman.cli.node import node; typer.run(node)"


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE, env=dict(os.environ)
    )


async def _end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    try:
        async with asyncio.timeout(WAIT_S):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.slow
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_it_registers_serves_and_stops(json: list[str]) -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            options = ["--slots", "2", "--id", "n-1", "--tenant", "acme", "--no-public", "--token", "s3cret", *json]
            process = await _start("--engines", "echo", "--url", scheduler.url, *options)
            peer = await scheduler.peer()
            register = await peer.welcome()
            assert (register.node_id, register.tenant_id, register.max_concurrent_jobs) == ("n-1", "acme", 2)
            assert (register.accept_public_jobs, peer.token, peer.is_binary) == (False, "Bearer s3cret", not json)
            await peer.send(assign(audio=b"a secret"))
            assert (await peer.expect(JobResult)).text_translated == "[pt] a secret"
            process.send_signal(signal.SIGTERM)
            code, log = await _end(process)
            assert code == 0
            assert "node_stopped" in log
            assert "secret" not in log
            assert "s3cret" not in log

    asyncio.run(story())


@pytest.mark.slow
def test_a_refused_node_ends_with_1_and_says_why() -> None:
    async def story() -> None:
        async with fake_scheduler() as scheduler:
            process = await _start("--engines", "echo", "--url", scheduler.url)
            await (await scheduler.peer()).refuse("UNAUTHORIZED")
            code, log = await _end(process)
            assert code == 1
            assert "the scheduler refused this node: UNAUTHORIZED: because of the test" in log
            assert "Traceback" not in log

    asyncio.run(story())
