"""Who is let in, by which way, and what does it say if not?"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from dragoman.embedded import EmbeddedValkey, single_valkey
from dragoman.store.interface import StoreDownError
from dragoman.store.redis.connection import CommandError
from tests.redis.opened import ADD, not_open, opened, outcome


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedValkey]:
    """A server with users."""
    with single_valkey(options=("--requirepass", "s3cret/@:", "--databases", "2")) as valkey:
        valkey.call("ACL", "SETUSER", "ann", "on", ">pass word", "~*", "+@all")
        valkey.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get", "+set")
        valkey.call("ACL", "SETUSER", "lean", "on", ">pw", "~*", "+@scripting", "-script", "+incrby")
        valkey.call("ACL", "SETUSER", "open", "on", "nopass", "~*", "+@all")
        yield valkey


def _url(valkey: EmbeddedValkey, user: str, rest: str = "") -> str:
    return f"redis://{user}@127.0.0.1:{valkey.port}{rest}"


@pytest.mark.parametrize("user", [":s3cret%2F%40%3A", "default:s3cret%2F%40%3A", "ann:pass%20word", "open"])
async def test_whoever_has_the_password_is_let_in(guarded: EmbeddedValkey, user: str) -> None:
    async with opened(_url(guarded, user, "/1")) as servers:
        assert await servers.run(ADD, [b"{a}count"], [1]) == 1
        await servers.call(b"{a}count", "DEL", b"{a}count")


async def test_a_user_needs_no_permission_for_what_is_mere_comfort(guarded: EmbeddedValkey) -> None:
    async with opened(_url(guarded, "lean:pw")) as servers:
        await servers.run(ADD, [b"lean"], [1])

        refused = await outcome(servers.call(b"lean", "GET", b"lean"))
        assert isinstance(refused, CommandError)
        assert "NOPERM" in str(refused)


@pytest.mark.parametrize(
    ("user", "rest", "advice"),
    [
        ("ann:hunter2", "", "WRONGPASS.*password of user 'ann'.*is wrong"),
        (":hunter2", "", "WRONGPASS.*password of the default user.*is wrong"),
        ("nobody:hunter2", "", "WRONGPASS"),
        ("", "", "NOAUTH.*put user and password into the address"),
        ("ann:pass%20word", "/7", "SELECT.*choose a database"),
        ("reader:pw", "", r"NOPERM.*may not run scripts.*\+@scripting"),
    ],
)
async def test_whoever_is_not_let_in_is_told_at_once_what_to_do(
    guarded: EmbeddedValkey, user: str, rest: str, advice: str
) -> None:
    servers = not_open(_url(guarded, user, rest).replace("//@", "//"), connect_timeout_ms=60_000)
    with pytest.raises(StoreDownError, match=advice) as caught:
        await servers.open()
    assert "hunter2" not in str(caught.value)


async def test_a_password_for_a_server_that_wants_none_is_refused_with_advice(valkey: EmbeddedValkey) -> None:
    with pytest.raises(StoreDownError, match=r"ERR AUTH.*password of the default user"):
        await not_open(_url(valkey, ":hunter2")).open()


async def test_nobody_at_the_address_is_said_when_connecting_has_taken_its_time() -> None:
    with pytest.raises(StoreDownError, match=r"127.0.0.1:1 cannot be reached.*Check that a Redis or Valkey"):
        await not_open("redis://127.0.0.1:1", connect_timeout_ms=120).open()


async def test_a_server_that_does_not_answer_is_not_waited_for_longer_than_connecting_may_take(
    own_valkey: EmbeddedValkey,
) -> None:
    own_valkey.pause()
    try:
        with pytest.raises(StoreDownError, match="no answer in"):
            await not_open(own_valkey.url, connect_timeout_ms=120).open()
    finally:
        own_valkey.resume()


async def test_a_replica_is_refused(own_valkey: EmbeddedValkey) -> None:
    own_valkey.call("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreDownError, match="is a replica: name the address of its primary"):
        await not_open(own_valkey.url, connect_timeout_ms=120).open()


async def test_a_server_that_is_full_of_clients_says_so() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(b"-ERR max number of clients reached\r\n")
        writer.close()

    crowded = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with crowded:
        port = crowded.sockets[0].getsockname()[1]
        with pytest.raises(StoreDownError, match="raise its maxclients"):
            await not_open(f"redis://127.0.0.1:{port}", connect_timeout_ms=120).open()


async def test_a_socket_of_the_machine_is_a_way_in() -> None:
    with tempfile.TemporaryDirectory() as folder, single_valkey(unix_socket=f"{folder}/valkey.sock") as valkey:
        assert valkey.url == f"unix://{folder}/valkey.sock"
        async with opened(valkey.url) as servers:
            assert await servers.run(ADD, [b"count"], [1]) == 1


# --- TLS


@asynccontextmanager
async def tls_before(valkey: EmbeddedValkey, certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """A port that speaks TLS, with a plain server behind it."""

    serving: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        behind, before = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(carry(reader, before), carry(behind, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]
        await asyncio.gather(*serving)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


async def test_a_server_with_a_certificate_we_trust_is_used(
    valkey: EmbeddedValkey, authority: trustme.CA, tmp_path: Path
) -> None:
    async with (
        tls_before(valkey, authority.issue_cert("127.0.0.1")) as port,
        opened(f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem") as servers,
    ):
        await servers.call(b"big", "SET", b"big", b"x" * 1_000_000)
        assert await servers.call(b"big", "STRLEN", b"big") == 1_000_000


async def test_a_server_whose_certificate_is_not_to_be_trusted_is_refused_with_advice(
    valkey: EmbeddedValkey, authority: trustme.CA
) -> None:
    async with tls_before(valkey, authority.issue_cert("127.0.0.1")) as port:
        with pytest.raises(StoreDownError, match=r"TLS failed.*ssl_ca_certs"):
            await not_open(f"rediss://127.0.0.1:{port}").open()


async def test_a_certificate_for_another_host_is_refused_unless_told_otherwise(
    valkey: EmbeddedValkey, authority: trustme.CA, tmp_path: Path
) -> None:
    async with tls_before(valkey, authority.issue_cert("other.example")) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem"
        with pytest.raises(StoreDownError, match=r"TLS failed.*(127\.0\.0\.1|host)"):
            await not_open(url).open()
        for trusting in (f"{url}&ssl_check_hostname=false", f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none"):
            async with opened(trusting) as servers:
                assert servers.is_up


async def test_a_server_that_speaks_no_tls_is_refused_with_advice(valkey: EmbeddedValkey) -> None:
    with pytest.raises(StoreDownError):
        await not_open(f"rediss://127.0.0.1:{valkey.port}", connect_timeout_ms=120).open()
