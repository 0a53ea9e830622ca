"""How is an address read, and what of it is shown?"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from dragoman.store.redis.address import Address, AddressError, parse_address


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://127.0.0.1", {}),
        ("valkey://store.example:7000/3", {"host": "store.example", "port": 7000, "database": 3}),
        ("redis://localhost/?db=2", {"host": "localhost", "database": 2}),
        ("redis://:se%40cret@127.0.0.1", {"password": "se@cret"}),
        ("redis://ann:a%2Fb%3Ac@127.0.0.1", {"user": "ann", "password": "a/b:c"}),
        ("redis://ann@127.0.0.1?password=p%26q", {"user": "ann", "password": "p&q"}),
        ("redis://127.0.0.1?username=ann&password=pw", {"user": "ann", "password": "pw"}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("unix:///run/valkey.sock", {"host": "", "port": 0, "unix_path": "/run/valkey.sock"}),
        (
            "unix://ann:pw@/run/my%20valkey.sock?db=4",
            {"host": "", "port": 0, "unix_path": "/run/my valkey.sock", "user": "ann", "password": "pw", "database": 4},
        ),
    ],
)
def test_an_address_is_read(url: str, parts: dict[str, Any]) -> None:
    assert parse_address(url) == Address(**parts)


def test_a_password_is_not_shown() -> None:
    address = parse_address("rediss://ann:hunter2@127.0.0.1")

    assert "hunter2" not in f"{address!r} {address} {address.name}"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://127.0.0.1", "wanted one of redis"),
        ("redis://", "redis://127.0.0.1:6379"),
        ("redis://:hunter2@127.0.0.1:port", "malformed"),
        ("redis://:hunter2/3@127.0.0.1", "percent-encoded"),
        ("unix://", "unix:///run/valkey.sock"),
        ("redis://127.0.0.1/first", "wanted a number"),
        ("redis://127.0.0.1?colour=red", "the option colour: known are db"),
        ("redis://127.0.0.1?ssl_ca_certs=ca.pem", "begin it with rediss://"),
        ("rediss://127.0.0.1?ssl_ca_certs=no-such.pem", "no-such.pem.*cannot be read"),
        ("rediss://127.0.0.1?ssl_certfile=no-such.pem", "no-such.pem.*cannot be read"),
        ("rediss://127.0.0.1?ssl_keyfile=key.pem", "give both or neither"),
        ("rediss://127.0.0.1?ssl_cert_reqs=perhaps", "wanted one of required, none"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_advice(url: str, advice: str) -> None:
    with pytest.raises(AddressError, match=advice) as caught:
        parse_address(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "verify_mode", "check_hostname"),
    [
        ("", ssl.CERT_REQUIRED, True),
        ("?ssl_check_hostname=false", ssl.CERT_REQUIRED, False),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE, False),
    ],
)
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_certificates_are_checked_unless_told_otherwise(
    scheme: str, options: str, verify_mode: ssl.VerifyMode, check_hostname: bool
) -> None:
    tls = parse_address(f"{scheme}://127.0.0.1{options}").tls

    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (verify_mode, check_hostname)


def test_a_certificate_of_our_own_is_loaded(tmp_path: Path) -> None:
    own = trustme.CA().issue_cert("client.example")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")

    assert parse_address(f"rediss://127.0.0.1?ssl_certfile={tmp_path}/own.pem&ssl_keyfile={tmp_path}/own.key").tls
