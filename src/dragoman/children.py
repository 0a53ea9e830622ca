"""How does one program of ours start, watch and stop others? For trials on one machine, benchmarks and tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psutil

_POLL_S: Final = 0.05
_PORTS: Final = range(22_000, 32_000)
_STOP_S: Final = 10.0
_LAST_WORDS_S: Final = 1.0
_TAIL_LINES: Final = 15
_KEPT_LINES: Final = 200
_LINE_CHARS_MAX: Final = 65_536

_LEASHED: Final = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
if os.getppid() != int(parent):
    sys.exit("the program that wanted this one is gone")
os.execv(command[0], command)
"""
"""Becomes the child, and is asked to end when the thread that started it is gone."""


class ChildError(RuntimeError):
    """A process did not do what it was started for; the message has the end of what it said."""


def free_port() -> int:
    """A port on the loopback address that nobody uses now.

    It is below those that the system gives to outgoing connections: one of these could be faster than who asked.
    """
    while True:
        port = random.choice(_PORTS)  # noqa: S311  # not a secret
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Child:
    """A process that is stopped at the end of the block it was started in.

    It is in a process group of its own: Ctrl-C is for this program, which stops its children in its own order.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """What it says is kept in a file; with `on_line`, called in a thread for each line, only the end is kept."""
        self.name = name
        self._speech: _Transcript | _Lines = _Transcript() if on_line is None else _Lines(on_line)
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
            _leashed([sys.executable, *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=self._speech.sink,
            stderr=self._speech.sink,
            env=None if environment is None else dict(environment),
            process_group=0,
        )
        self._speech.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._speech.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, once it has."""
        return self._process.poll()

    def said(self) -> str:
        """What it has printed so far; with `on_line`, the end of that."""
        return self._speech.said(is_over=self._process.poll() is not None)

    def tail(self) -> str:
        """The last lines that it has printed."""
        return "\n".join(self.said().splitlines()[-_TAIL_LINES:])

    def is_healthy(self, port: int, host: str = "127.0.0.1") -> bool:
        """Whether it runs and its data port answers `/health`."""
        return self._process.poll() is None and _is_healthy(port, host)

    def wait_healthy(self, port: int, timeout_s: float = 20) -> None:
        """Wait until its data port answers `/health`. Raises ChildError."""
        deadline_s = time.monotonic() + timeout_s
        while not _is_healthy(port, "127.0.0.1"):
            self._check(deadline_s, f"did not answer on port {port}")
            time.sleep(_POLL_S)

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        """Wait until it has printed a text. Raises ChildError."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.said():
            self._check(deadline_s, f"did not say {text!r}")
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises ChildError."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ChildError(f"{self.name} still runs after {timeout_s:g} s\n{self.tail()}") from error

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Ask it to end, and end it."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        self.end_by(time.monotonic() + timeout_s)

    def end_by(self, deadline_s: float) -> None:
        """Wait for its end until that time of the monotonic clock, then end it."""
        try:
            self._process.wait(max(deadline_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_s(self) -> float:
        """The processor time it has used, in seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """The memory it has resident."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def _check(self, deadline_s: float, what: str) -> None:
        if self._process.poll() is not None:
            raise ChildError(f"{self.name} ended with code {self._process.returncode}\n{self.tail()}")
        if time.monotonic() > deadline_s:
            raise ChildError(f"{self.name} {what} in time\n{self.tail()}")


# --- scheduler instances as children


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A scheduler instance that runs as a child."""

    child: Child
    host: str
    port: int

    @property
    def name(self) -> str:
        """Its instance id."""
        return self.child.name

    @property
    def url(self) -> str:
        """Where it listens, without the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    @property
    def session_url(self) -> str:
        """Where it listens for sessions."""
        return f"{self.url}/ws/session"

    @property
    def node_url(self) -> str:
        """Where it listens for nodes."""
        return f"{self.url}/ws/node"

    def is_healthy(self) -> bool:
        """Whether it is there and takes work."""
        return self.child.is_healthy(self.port, self.host)


def sharing(urls: Sequence[str], *, is_cluster: bool) -> tuple[str, ...]:
    """The settings of instances that share their work over one server, or over a Redis Cluster."""
    mode = "cluster" if is_cluster else "single"
    where = "cluster_urls=" + json.dumps(list(urls)) if is_cluster else "url=" + json.dumps(urls[0])
    return (
        "scheduler.phase2.enabled=true",
        f'scheduler.phase2.redis.mode="{mode}"',
        f"scheduler.phase2.redis.{where}",
    )


@contextmanager
def instances(
    ports: Sequence[int],
    settings: Sequence[str],
    *,
    host: str = "127.0.0.1",
    options: Sequence[str] = (),
    on_line: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[Instance, ...]]:
    """One scheduler instance for each port, named i1, i2 and so on; they are stopped together.

    `settings` are as for `--set`, `options` further options of `dragoman serve`, `host` is where they are reached;
    `on_line` hears each line with the name of who said it.
    """
    with ExitStack() as stack:
        running: list[Instance] = []
        for number, port in enumerate(ports, 1):
            name = f"i{number}"
            own = (f"server.port={port}", "server.admin_port=0", f'scheduler.phase2.instance_id="{name}"')
            words = [word for item in (*settings, *own) for word in ("--set", item)]
            hear = None if on_line is None else _named(on_line, name)
            child = Child(name, ["-m", "dragoman", "serve", *options, *words], on_line=hear)
            stack.enter_context(child)
            running.append(Instance(child=child, host=host, port=port))
        # The last to be entered is the first to be left: all are asked to end before any is waited for.
        stack.callback(_stop_together, running)
        yield tuple(running)


def _stop_together(running: Sequence[Instance]) -> None:
    deadline_s = time.monotonic() + _STOP_S
    for instance in running:
        if instance.child.exit_code is None:
            instance.child.send_signal(signal.SIGTERM)
    for instance in running:
        instance.child.end_by(deadline_s)


def _named(on_line: Callable[[str, str], None], name: str) -> Callable[[str], None]:
    return lambda line: on_line(name, line)


# --- how


class _Transcript:
    """Everything that a child says, in a file."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the child is
        self.sink = self._file.fileno()

    def begin(self) -> None:
        """Nothing to do: the child writes by itself."""

    def said(self, *, is_over: bool) -> str:  # noqa: ARG002  # what was written is there
        # Read at a position, without moving there: the child writes where this file is, and shares that place.
        return os.pread(self.sink, os.fstat(self.sink).st_size, 0).decode(errors="replace")

    def close(self) -> None:
        self._file.close()


class _Lines:
    """What a child says, line by line as it comes."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._source, self.sink = os.pipe()
        self._on_line = on_line
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def begin(self) -> None:
        """Read until the child, who alone has the other end now, is gone."""
        os.close(self.sink)
        self._thread.start()

    def said(self, *, is_over: bool) -> str:
        if is_over:
            self._thread.join(_LAST_WORDS_S)
        return "\n".join(tuple(self._kept))

    def close(self) -> None:
        self._thread.join(_LAST_WORDS_S)

    def _read(self) -> None:
        with open(self._source, encoding="utf-8", errors="replace") as said:  # noqa: PTH123  # a descriptor
            while line := said.readline(_LINE_CHARS_MAX):
                self._kept.append(line.rstrip("\n"))
                # Nobody listens any more: read on all the same, or the child would stand still.
                with contextlib.suppress(OSError):
                    self._on_line(line.rstrip("\n"))


def _leashed(command: list[str]) -> list[str]:
    # The leash is held by the thread, not by the process: one that ends would take the child with it.
    if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
        return [sys.executable, "-I", "-S", "-c", _LEASHED, str(os.getpid()), *command]
    return command


def _is_healthy(port: int, host: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(host, port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    return False
