"""Which scripts run inside the server?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script: one atomic step of the store."""

    name: str
    text: str = field(repr=False)
    sha1: bytes = field(init=False)
    """What the server calls it, in hex."""

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha1", digest.encode())


def load_script(name: str) -> Script:
    """Read `lua/<name>.lua` of this package. Raises FileNotFoundError."""
    return Script(name, (files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8"))
