"""What is wrong with a configuration? All of it at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    origin: str
    """Where it was said: a file, an environment variable, an option."""
    text: str

    def __str__(self) -> str:
        # Names and values come from outside: what cannot be printed must not break the message.
        line = f"{self.origin}: {self.text}".encode("utf-8", "backslashreplace").decode()
        return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


class ConfigError(Exception):
    """A configuration that nothing may be started with; one line per problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))
