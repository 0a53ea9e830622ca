"""Are the scripts of the package ones that the server takes, by the names that we call them?"""

from __future__ import annotations

from pathlib import Path

import pytest

import dragoman.store.redis
from dragoman.embedded import EmbeddedValkey
from dragoman.store.redis.scripts import load_script

NAMES = sorted(path.stem for path in Path(dragoman.store.redis.__path__[0]).glob("lua/*.lua"))


@pytest.mark.parametrize("name", NAMES)
def test_the_server_calls_a_script_as_we_do(valkey: EmbeddedValkey, name: str) -> None:
    script = load_script(name)

    assert valkey.call("SCRIPT", "LOAD", script.text) == script.sha1
    assert script.name == name


def test_a_script_that_is_not_there_is_missed() -> None:
    with pytest.raises(FileNotFoundError):
        load_script("no_such_script")
