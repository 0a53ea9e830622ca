"""How does this machine become a worker node?"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_REFUSED = 1
_WRONG_USE = 2


def node(
    engines: Annotated[
        str, typer.Option(help="What does the work: offline, echo or package.module:factory; several with commas.")
    ] = "offline",
    url: Annotated[str, typer.Option(help="Where the scheduler listens for nodes.")] = "ws://127.0.0.1:5010/ws/node",
    slots: Annotated[int, typer.Option(min=1, help="Jobs at a time.")] = 1,
    node_id: Annotated[
        str | None, typer.Option("--id", help="The node's name, the same after a restart; else the scheduler names it.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant that the node belongs to.")] = None,
    public: Annotated[bool, typer.Option(help="Whether it takes jobs of other tenants too.")] = True,
    token: Annotated[str | None, typer.Option(help="The secret that the scheduler wants of nodes.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Speak JSON with the scheduler, not MessagePack.")] = False,
    grace_s: Annotated[float, typer.Option(min=0, help="Seconds that running jobs may take after SIGTERM.")] = 30,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="How the log looks.")] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="The least that is logged.")
    ] = "info",
) -> None:
    """Run a worker node until SIGTERM; it comes back by itself when the scheduler does.

    Example: dragoman node --engines offline --url ws://127.0.0.1:5010/ws/node --slots 2 --id lisbon-1
    """
    from dragoman.engines.loading import EngineError, load
    from dragoman.node import Node, NodeRefusedError
    from dragoman.telemetry.logs import configure_logs

    configure_logs(log_format, log_level)
    if not url.startswith(("ws://", "wss://")):
        typer.echo(f"--url {url}: wanted one that begins with ws:// or wss://", err=True)
        raise typer.Exit(_WRONG_USE)
    try:
        services = load(engines, parallel=slots)
    except EngineError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_WRONG_USE) from error
    worker = Node(
        services,
        slots=slots,
        node_id=node_id,
        tenant_id=tenant,
        accept_public_jobs=public,
        token=token,
        json=json,
        grace_s=grace_s,
    )
    try:
        worker.run(url)
    except NodeRefusedError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_REFUSED) from error
