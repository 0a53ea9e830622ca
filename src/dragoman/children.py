"""How does one program of ours start, watch and stop others? For the demo, the benchmarks and the tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Final, Self

import psutil

_POLL_S: Final = 0.05


class ChildError(RuntimeError):
    """A process did not do what it was started for; the message has the end of what it said."""


def free_port() -> int:
    """A port on the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A process that is stopped at the end of the block it was started in. What it says on stderr is kept in a file."""

    def __init__(self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the child is
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and modules
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            env=None if environment is None else dict(environment),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._said.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, once it has."""
        return self._process.poll()

    def said(self) -> str:
        """What it has printed so far."""
        # Read at a position, without moving there: the child writes where this file is, and shares that place.
        file = self._said.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def wait_healthy(self, port: int, timeout_s: float = 20) -> None:
        """Wait until its data port answers `/health`. Raises ChildError."""
        deadline_s = time.monotonic() + timeout_s
        while not _is_healthy(port):
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
            raise ChildError(f"{self.name} still runs after {timeout_s:g} s\n{self._tail()}") from error

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, timeout_s: float = 10) -> None:
        """Ask it to end, and end it."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
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
            raise ChildError(f"{self.name} ended with code {self._process.returncode}\n{self._tail()}")
        if time.monotonic() > deadline_s:
            raise ChildError(f"{self.name} {what} in time\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self.said().splitlines()[-15:])


def _is_healthy(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    return False
