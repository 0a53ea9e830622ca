"""By which addresses is the store reached?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dragoman.embedded import single_valkey
from tests.cluster.clients import clients_at, introduce
from tests.cluster.fleet import fleet_of
from tests.cluster.nodes import nodes_at
from tests.cluster.record import Record
from tests.cluster.shared import Shared

pytestmark = pytest.mark.slow


@contextmanager
def _reached_by(kind: str) -> Iterator[Shared]:
    if kind == "password":
        with single_valkey(options=("--requirepass", "secret")) as server:
            yield Shared(server, url=f"redis://:secret@127.0.0.1:{server.port}")
    elif kind == "unix socket":
        with tempfile.TemporaryDirectory() as folder, single_valkey(unix_socket=str(Path(folder) / "v.sock")) as server:
            yield Shared(server)
    else:
        with single_valkey() as server:
            yield Shared(server, url=f"valkey://127.0.0.1:{server.port}/1")


@pytest.mark.parametrize("kind", ["password", "unix socket", "another name and database"])
async def test_instances_work_together_over_a_store_that_is_reached_by(kind: str) -> None:
    with _reached_by(kind) as shared, fleet_of(2, shared) as fleet:
        await fleet.is_ready()
        record = Record()
        async with nodes_at(record, ([fleet[0].url], "n1")) as nodes, clients_at(record, [fleet[1].url]) as [client]:
            await introduce(fleet, nodes)
            await client.asks("hello")
            record.assert_right()
