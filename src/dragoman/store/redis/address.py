"""Where is a server, and how does one get in?"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dragoman.config.redis_url import SCHEMES

PORT: Final = 6379

_TLS_SCHEMES: Final = ("rediss", "valkeys")
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_OPTIONS: Final = ("db", "username", "password", *_TLS_OPTIONS)


class AddressError(ValueError):
    """An address that cannot be used. The message never has the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One server and the way in."""

    host: str = "127.0.0.1"
    port: int = PORT
    unix_path: str | None = None
    """A socket of this machine, instead of host and port."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What logs and errors call it."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read an address: `redis://`, `rediss://`, `valkey://`, `valkeys://` or `unix://`. Raises AddressError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its text may quote the password.
        raise AddressError(
            "the address is malformed: wanted as redis://user:password@host:6379/0, with / : @ # ? of the password "
            "percent-encoded"
        ) from None
    if parts.scheme not in SCHEMES:
        raise AddressError(f"the address begins with {parts.scheme or 'nothing'}://: wanted one of {_named(SCHEMES)}")
    is_unix = parts.scheme == "unix"
    options = _read_options(parts.query)
    if not is_unix and not host:
        raise AddressError("the address names no host: wanted as redis://127.0.0.1:6379")
    if is_unix and not parts.path.strip("/"):
        raise AddressError("the address names no socket: wanted as unix:///run/valkey.sock")
    database = options.get("db", "" if is_unix else unquote(parts.path).removeprefix("/"))
    return Address(
        host="" if is_unix or host is None else unquote(host),
        port=0 if is_unix else port or PORT,
        unix_path=unquote(parts.path) if is_unix else None,
        user=options.get("username") or unquote(parts.username or "") or None,
        password=options.get("password") or unquote(parts.password or "") or None,
        database=_read_database(database),
        tls=_tls_context(options, is_wanted=parts.scheme in _TLS_SCHEMES),
    )


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _read_options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise AddressError(f"the address has the option {unknown[0]}: known are {_named(_OPTIONS)}")
    return options


def _read_database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise AddressError(f"the address has database {text!r}: wanted a number, as in redis://127.0.0.1:6379/0")
    return int(text)


def _tls_context(options: dict[str, str], *, is_wanted: bool) -> ssl.SSLContext | None:
    if not is_wanted:
        if given := sorted(options.keys() & set(_TLS_OPTIONS)):
            raise AddressError(f"the address has {given[0]} but no TLS: begin it with {_TLS_SCHEMES[0]}://")
        return None
    is_checked = _one_of(options, "ssl_cert_reqs", ("required", "none")) == "required"
    is_named = _one_of(options, "ssl_check_hostname", ("true", "false")) == "true"
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    except (OSError, ValueError) as error:
        raise AddressError(f"ssl_ca_certs = {options['ssl_ca_certs']!r}: cannot be read: {error}") from error
    context.check_hostname = is_checked and is_named
    if not is_checked:
        context.verify_mode = ssl.CERT_NONE
    _load_own_certificate(context, options)
    return context


def _one_of(options: dict[str, str], name: str, values: tuple[str, ...]) -> str:
    """The value of an option; the first is the default."""
    value = options.get(name, values[0]).lower()
    if value not in values:
        raise AddressError(f"{name} = {value!r}: wanted one of {_named(values)}")
    return value


def _load_own_certificate(context: ssl.SSLContext, options: dict[str, str]) -> None:
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if certificate is None:
        if key is not None:
            raise AddressError("ssl_keyfile is given without ssl_certfile: give both or neither")
        return
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise AddressError(f"ssl_certfile = {certificate!r}, ssl_keyfile = {key!r}: cannot be read: {error}") from error
