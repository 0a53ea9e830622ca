"""What does the program tell its operator? One event with fields for each change of state; never audio, text or tokens.

Levels: `debug` for the steps of a job, `info` for connections and nodes, `warning` for what went wrong and was mended,
`error` for what needs somebody.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal

import structlog
from structlog.typing import FilteringBoundLogger

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(log_format: Literal["text", "json"], log_level: str) -> None:
    """Set how and how much is logged, for the whole process; to standard error."""
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, sort_keys=False)
    )
    _Level.is_debug = log_level == "debug"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log_level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The WebSocket library warns of each broken peer through the standard module; we count and log those ourselves.
    logging.getLogger("picows").setLevel(logging.CRITICAL)


class Logger:
    """The logger of one part of the program, named in each of its lines."""

    __slots__ = ("_log",)

    def __init__(self, part: str) -> None:
        self._log: FilteringBoundLogger = structlog.get_logger(part=part)

    def info(self, event: str, **fields: Any) -> None:
        """Log a change of state."""
        self._log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what went wrong and was mended."""
        self._log.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what needs somebody."""
        self._log.error(event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log a fault of ours, with its traceback."""
        self._log.exception(event, **fields)

    def debug(self, event: str, **fields: Any) -> None:
        """Log a step of a job. Nearly always off, so finding that out must cost nothing."""
        if _Level.is_debug:
            self._log.debug(event, **fields)


class _Level:
    is_debug = False


def get_logger(part: str) -> Logger:
    """The logger of one part of the program."""
    return Logger(part)
