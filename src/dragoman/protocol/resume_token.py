"""What does a client need to come back to its session, and what is kept of that here?

A token names its session, so that any instance can find it, and has 256 random bits. Only its digest is stored: who
reads the store can resume nothing.
"""

from __future__ import annotations

import hashlib
import secrets

from dragoman.core.ids import SessionId


def make_token(session_id: SessionId) -> tuple[str, bytes]:
    """A new token, and its digest."""
    token = f"{session_id}.{secrets.token_urlsafe(32)}"
    return token, digest_of(token)


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def session_of(token: str) -> SessionId:
    """The session that a token is for; whether it is good, only the store knows."""
    return SessionId(token.partition(".")[0])
