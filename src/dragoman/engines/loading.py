"""Which services does `--engines` name?"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from dragoman.engines import echo, offline
from dragoman.node import Services


class EngineError(Exception):
    """A name of `--engines` that gives no services: says which, what was seen and what was wanted."""


def load(names: str, *, parallel: int = 1) -> Services:
    """The services of all engines in a comma-separated list, the first named first.

    A name is `offline`, `echo` or `package.module:factory`; a factory is called without arguments and returns
    Services. Raises EngineError.
    """
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise EngineError(f"--engines {names!r} names nothing; wanted offline, echo or package.module:factory")
    services = Services()
    for name in listed:
        try:
            services.include(_load_one(name, parallel))
        except ValueError as error:
            raise EngineError(f"engine {name!r}: {error}") from error
    if not services.offers:
        raise EngineError(f"--engines {names}: none of them has a service here; see the log for the reasons")
    return services


def _load_one(name: str, parallel: int) -> Services:
    match name.split(":"):
        case ["offline"]:
            return offline.services(parallel=parallel)
        case ["echo"]:
            return echo.services()
        case [module, factory] if module and factory:
            return _call(name, module, factory)
        case _:
            raise EngineError(f"no engine {name!r}; wanted offline, echo or package.module:factory")


def _call(name: str, module: str, factory: str) -> Services:
    here = str(Path.cwd())
    if here not in sys.path:
        # A program's own directory is not on the path of an installed command, but that is where people work.
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), factory)
        services = found() if callable(found) else found
    except AttributeError as error:
        raise EngineError(f"engine {name!r}: {error}") from error
    except Exception as error:
        raise EngineError(f"engine {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(services, Services):
        raise EngineError(f"engine {name!r} gave {type(services).__name__}; wanted dragoman.node.Services")
    return services
