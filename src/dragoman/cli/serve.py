"""How does a scheduler instance run, from its settings to its last signal?"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from dragoman.cli.config_options import ConfigFile, Overrides, settings_from
from dragoman.cli.outcome import WRONG_USE, CommandError

if TYPE_CHECKING:
    from dragoman.config.settings import Settings


def serve(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Run one scheduler instance until SIGTERM, which drains it; a second one stops it at once.

    Clients connect to ws://HOST:PORT/ws/session, nodes to ws://HOST:PORT/ws/node.

    Example: dragoman serve --config dragoman.toml --set server.port=5010
    """
    run_instance(settings_from(config, overrides))


def run_instance(settings: Settings) -> None:
    """Run one instance with these settings.

    Raises CommandError for settings not built yet, a taken port or id, and a store that cannot be used.
    """
    from dragoman.cluster.presence import IdTakenError
    from dragoman.config.unbuilt import unbuilt_features
    from dragoman.loop import run
    from dragoman.store.interface import StoreDownError
    from dragoman.telemetry.logs import configure_logs

    unbuilt = unbuilt_features(settings)
    if unbuilt:
        raise CommandError("\n".join(unbuilt), WRONG_USE)
    configure_logs(settings.observability.log_format, settings.observability.log_level)
    try:
        run(_serve_until_stopped(settings))
    except StoreDownError as error:
        text = f"[scheduler.phase2.redis] the shared store cannot be used: {error}"
        raise CommandError(text, WRONG_USE) from error
    except IdTakenError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        where = f"{settings.server.host}:{settings.server.port}"
        raise CommandError(f"cannot listen on {where}: {error.strerror or error}") from error


async def _serve_until_stopped(settings: Settings) -> None:
    from dragoman.app import running_app

    stop, stop_now = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (stop_now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    async with running_app(settings) as app:
        app.failure.add_done_callback(lambda _: stop.set())
        await stop.wait()
        if app.failure.done():
            raise app.failure.result()
        draining = asyncio.create_task(app.drain(), name="drain")
        stopping = asyncio.create_task(stop_now.wait(), name="second signal")
        await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        stopping.cancel()
        await asyncio.gather(draining, stopping, return_exceptions=True)
