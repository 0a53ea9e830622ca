"""How are many instances tried on one machine? N of them over one shared store, with one command."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dragoman.cli.config_options import ConfigFile, Overrides
from dragoman.cli.outcome import WRONG_USE, CommandError

if TYPE_CHECKING:
    from dragoman.children import Instance
    from dragoman.config.settings import ServerSettings
    from dragoman.embedded import EmbeddedValkey

_PORT: Final = 5010
_PORT_MAX: Final = 65_535
_INSTANCES_MAX: Final = 64
_MASTERS: Final = 3
# A dead instance's name is free again only when its presence has run out.
_START_S: Final = 30.0
_STOP_MARGIN_S: Final = 10.0
_POLL_S: Final = 0.1
_STORE_POLL_S: Final = 1.0

_GIVEN_BY: Final = {
    "server.port": "--port",
    "server.admin_port": "nothing: with many instances on one machine it is off",
    "scheduler.phase2.enabled": "--instances",
    "scheduler.phase2.instance_id": "--instances",
    "scheduler.phase2.redis.mode": "--redis-cluster",
    "scheduler.phase2.redis.url": "--redis",
    "scheduler.phase2.redis.cluster_urls": "--redis with --redis-cluster",
}
"""Keys that differ between the instances or are chosen here, and by what."""

_NEXT_STEPS = """
Try it in two other terminals: the node is at one instance, the session at another.
  dragoman node --engines echo --url {node_url}
  dragoman translate --src en --tgt pt --text "Good morning" --url {session_url}
Ctrl-C stops everything. The log follows on stderr."""


def cluster(
    instances: Annotated[
        int, typer.Option("--instances", min=1, max=_INSTANCES_MAX, metavar="N", help="How many scheduler instances.")
    ] = 2,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A Redis or Valkey that runs already; else one is started, and stopped."),
    ] = None,
    redis_cluster: Annotated[
        bool,
        typer.Option(
            "--redis-cluster",
            help=f"Over a Redis Cluster: {_MASTERS} masters that are started, or the one that --redis is part of.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=1, max=_PORT_MAX, help="Data port of the first instance; the others have the next ones.")
    ] = _PORT,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Run many scheduler instances on this machine over one shared Valkey, until Ctrl-C or SIGTERM.

    A session at one instance is served by nodes at any other. What each instance logs is shown with its name before
    it. All are stopped in good order: running jobs end, then the instances do, then the store that was started here;
    a second Ctrl-C does not wait for the jobs. The store that is started needs dragoman[valkey].

    Example: dragoman cluster --instances 3 --set observability.log_level=debug
    """
    from dragoman.children import instances as instances_at
    from dragoman.children import sharing

    server = _check(instances, port, redis, config, overrides or [], is_cluster=redis_cluster)
    ports = range(port, port + instances)
    _check_free(server.host, ports)
    with _signals() as told, _store(redis, is_cluster=redis_cluster) as store, ExitStack() as stack:
        settings = (*(overrides or ()), *sharing(store.urls, is_cluster=redis_cluster))
        options = () if config is None else ("--config", str(config))
        host = _reachable(server.host)
        running = stack.enter_context(instances_at(ports, settings, host=host, options=options, on_line=_Log().show))
        stack.callback(_stop, running, server.shutdown_grace_seconds + _STOP_MARGIN_S, told)
        _watch(running, store, told)


class _Told:
    """How often we were told to stop."""

    times = 0

    def note(self, *_: Any) -> None:
        self.times += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Store:
    """The shared store, and the servers that were started for it."""

    urls: tuple[str, ...]
    title: str
    servers: tuple[EmbeddedValkey, ...] = ()


class _Log:
    """Shows what the instances say, one line at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def show(self, name: str, line: str) -> None:
        with self._lock:
            sys.stderr.write(f"{name} | {line}\n")
            sys.stderr.flush()


# --- before the start


def _check(
    instances: int, port: int, redis: str | None, config: Path | None, overrides: Sequence[str], *, is_cluster: bool
) -> ServerSettings:
    """Find what is wrong before anything is started. Raises CommandError, and ConfigError for settings."""
    from dragoman.children import sharing
    from dragoman.config.file import load_settings

    for override in overrides:
        key = ".".join(part.strip() for part in override.partition("=")[0].split("."))
        if key in _GIVEN_BY:
            raise CommandError(f"--set {key}: here this is given by {_GIVEN_BY[key]}", WRONG_USE)
    if port + instances - 1 > _PORT_MAX:
        last = _PORT_MAX - instances + 1
        raise CommandError(f"--port {port}: must be {last} or less for {instances} instances", WRONG_USE)
    shared = sharing([redis or "redis://127.0.0.1"], is_cluster=is_cluster)
    return load_settings(config, os.environ, [*overrides, f"server.port={port}", "server.admin_port=0", *shared]).server


def _check_free(host: str, ports: Sequence[int]) -> None:
    for port in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise CommandError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}; {len(ports)} free ports in a row are "
                    f"wanted, choose the first with --port"
                ) from error


def _reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # what may be set


# --- the store


@contextmanager
def _store(redis: str | None, *, is_cluster: bool) -> Iterator[_Store]:
    if redis is not None:
        yield _Store(urls=(redis,), title="Redis Cluster" if is_cluster else "Redis or Valkey")
        return
    from dragoman.embedded import EmbeddedError, single_valkey, valkey_cluster

    with ExitStack() as stack:
        try:
            with _without_interrupts():
                if is_cluster:
                    servers = stack.enter_context(valkey_cluster(masters=_MASTERS)).servers
                else:
                    servers = (stack.enter_context(single_valkey()),)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error
        urls = tuple(server.url for server in servers)
        yield _Store(
            urls=urls, title="Redis Cluster, started here" if is_cluster else "Valkey, started here", servers=servers
        )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C goes to every process of the terminal: who is started in this block never hears of it.

    The store must be there until the instances have ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- while they run


@contextmanager
def _signals() -> Iterator[_Told]:
    told = _Told()
    before = {number: signal.signal(number, told.note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(running: Sequence[Instance], store: _Store, told: _Told) -> None:
    """Say when all are ready, then wait until told to stop. Raises CommandError when one ends by itself."""
    deadline_s = time.monotonic() + _START_S
    store_due_s = deadline_s
    is_ready = False
    while not told.times:
        for instance in running:
            if instance.child.exit_code is not None:
                raise CommandError(_obituary(instance))
        if not is_ready and all(instance.is_healthy() for instance in running):
            is_ready = True
            store_due_s = time.monotonic()
            _announce(running, store)
        if not is_ready and time.monotonic() > deadline_s:
            late = next(instance for instance in running if not instance.is_healthy())
            raise CommandError(f"{late.name} is not ready after {_START_S:g} s; it said:\n{late.child.tail()}")
        if time.monotonic() > store_due_s:
            store_due_s = time.monotonic() + _STORE_POLL_S
            _check_store(store)
        time.sleep(_POLL_S)


def _announce(running: Sequence[Instance], store: _Store) -> None:
    from dragoman.config.redis_url import mask_password

    lines = [f"{store.title}: {' '.join(mask_password(url) for url in store.urls)}"]
    lines += [f"{item.name}: sessions {item.session_url}  nodes {item.node_url}" for item in running]
    typer.echo("\n".join(lines))
    typer.echo(_NEXT_STEPS.format(node_url=running[0].node_url, session_url=running[-1].session_url))


def _obituary(instance: Instance) -> str:
    return (
        f"{instance.name} ended by itself with code {instance.child.exit_code}, so the others were stopped; the end of "
        f"its log:\n{instance.child.tail()}"
    )


def _check_store(store: _Store) -> None:
    for server in store.servers:
        try:
            server.call("PING")
        except ConnectionError as error:
            raise CommandError(
                f"the Valkey at port {server.port} ended by itself, so the instances were stopped; the end of its "
                f"log:\n{server.said()}"
            ) from error
        except OSError:
            # It is there and slow.
            continue


def _stop(running: Sequence[Instance], patience_s: float, told: _Told) -> None:
    """Let all end what they do; told once more, at once. Raises CommandError when one had to be killed."""
    deadline_s = time.monotonic() + patience_s
    asked = 0
    while alive := [instance for instance in running if instance.child.exit_code is None]:
        # The first signal was for us. Each one after that is theirs too.
        if asked < max(told.times, 1):
            asked += 1
            for instance in alive:
                instance.child.send_signal(signal.SIGTERM)
        if time.monotonic() > deadline_s:
            for instance in alive:
                instance.child.end_by(deadline_s)
            names = ", ".join(instance.name for instance in alive)
            raise CommandError(f"killed, since still running {patience_s:g} s after they were asked to stop: {names}")
        time.sleep(_POLL_S)
