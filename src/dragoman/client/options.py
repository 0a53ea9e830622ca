"""What does a session need to know before it opens?"""

from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass
from typing import Final

from dragoman import __version__
from dragoman.client.patience import RetryPolicy
from dragoman.core.language import AUTO, parse_language
from dragoman.protocol.session_messages import SessionInit

REQUEST_ID_LENGTH_MAX: Final = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """See `dragoman.client.connect`, which names and explains each. Raises ValueError for a wrong one."""

    url: str
    src: str
    tgt: str
    token: str | None
    tenant: str | None
    tls: ssl.SSLContext | None
    json: bool
    dialect: str | None
    two_way: bool
    auto_langs: tuple[str, ...] | None
    partials: bool
    trace_id: str | None
    timeout_s: float
    connect_timeout_s: float
    reconnect_s: float
    heartbeat_s: float
    retry: RetryPolicy | None
    reopen: bool
    in_flight_max: int
    message_bytes_max: int

    def __post_init__(self) -> None:
        if not self.url.startswith(("ws://", "wss://")):
            raise ValueError(f"url {self.url!r}: wanted one that begins with ws:// or wss://")
        check_languages(self.src, self.tgt)
        for tag in self.auto_langs or ():
            parse_language(tag)
        if self.two_way and parse_language(self.src) in (AUTO, parse_language(self.tgt)):
            raise ValueError(f"two_way with src {self.src!r} and tgt {self.tgt!r}: wanted two languages")
        for name in ("timeout_s", "connect_timeout_s", "reconnect_s", "heartbeat_s", "in_flight_max"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: wanted more than 0")

    def init(self, *, resume_token: str | None, terminals_received: int) -> SessionInit:
        """The message that opens a session, or resumes it."""
        return SessionInit(
            client_version=f"dragoman-python/{__version__}",
            platform=sys.platform,
            src_lang=self.src,
            tgt_lang=self.tgt,
            dialect=self.dialect,
            tenant_id=self.tenant,
            mode="two_way_auto" if self.two_way else None,
            lang_a=self.src if self.two_way else None,
            lang_b=self.tgt if self.two_way else None,
            auto_langs=None if self.auto_langs is None else list(self.auto_langs),
            enable_streaming_asr=True if self.partials else None,
            trace_id=self.trace_id,
            resume_token=resume_token,
            terminals_received=None if resume_token is None else terminals_received,
        )


def check_languages(src: str, tgt: str) -> None:
    """Raises ValueError, naming the tag, unless both are language tags and the second a definite one."""
    parse_language(src)
    if parse_language(tgt) == AUTO:
        raise ValueError(f"tgt {tgt!r}: nothing can be translated into that; wanted a language like 'en'")
