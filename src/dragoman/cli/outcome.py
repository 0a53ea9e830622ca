"""How does a command end, and how does it say that it did not work?"""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
WRONG_USE: Final = 2
"""Wrong use of a command, or a wrong configuration."""


class CommandError(Exception):
    """What a command raises to end with one line on standard error and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
