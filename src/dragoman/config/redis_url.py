"""How is a Redis or Valkey address written, and what of it may be shown?"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import Secret

SCHEMES: Final = ("redis", "rediss", "unix", "valkey", "valkeys")
MASK: Final = "***"

# A password may hold anything, unescaped too, so everything up to the last @ counts as the user's part.
_USER_PART = re.compile(r"\A(?P<scheme>[^/@]*://)?(?P<user>.*)@", re.DOTALL)
_PASSWORD_QUERY = re.compile(r"(?P<name>[?&]password=)[^&#]*", re.IGNORECASE)


class RedisUrl(Secret[str]):
    """An address whose password is masked wherever it is printed; `get_secret_value()` is what a client needs."""

    def _display(self) -> str:
        return mask_password(self.get_secret_value())


def mask_password(address: str) -> str:
    """The address without its password; also of a text that is no proper address."""
    return _PASSWORD_QUERY.sub(rf"\g<name>{MASK}", _USER_PART.sub(_mask_user_part, address, count=1))


def _mask_user_part(match: re.Match[str]) -> str:
    name, colon, _ = match["user"].partition(":")
    # Without a colon it may be a user or a forgotten colon before a password.
    shown = f"{name}:{MASK}" if colon else MASK
    return f"{match['scheme'] or ''}{shown}@"


def redis_url_flaws(url: RedisUrl, *, is_cluster: bool) -> tuple[str, ...]:
    """Why it cannot be connected to; nothing when it is well formed."""
    try:
        parts = urlsplit(url.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        # Only the kind of error: its text may quote the password.
        reason = "the port is no number from 0 to 65535" if "ort" in str(error) else "the host is malformed"
        return (f"is no address: {reason}",)
    if parts.scheme not in SCHEMES:
        return (f"must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}",)
    if parts.scheme == "unix":
        return _unix_flaws(parts.path, is_cluster=is_cluster)
    database = parts.path.removeprefix("/")
    flaws = []
    if not host:
        flaws.append("must name a host, as in redis://127.0.0.1:6379")
    if port == 0:
        flaws.append("must have a port from 1 to 65535")
    if database and not re.fullmatch(r"[0-9]{1,9}", database):
        flaws.append("must end in the number of a database or in none, as in redis://127.0.0.1:6379/0")
    elif is_cluster and database.strip("0"):
        flaws.append("must not choose a database: a Redis Cluster has only number 0")
    return tuple(flaws)


def _unix_flaws(path: str, *, is_cluster: bool) -> tuple[str, ...]:
    if is_cluster:
        return ("must not be a unix:// address: a Redis Cluster is reached over the network",)
    if not path.strip("/"):
        return ("must name a socket, as in unix:///run/valkey.sock",)
    return ()
