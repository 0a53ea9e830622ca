"""What do instances write to each other?

A letter holds notes. Each note is a MessagePack array that begins with its kind; a newer instance may write longer ones
and kinds that we do not know. Notes are read one by one, so that a bad one spoils no other. Every reader may get a note
twice, and does what it asks once.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from dragoman.core.ids import InstanceId, JobId, NodeId, SessionId
from dragoman.protocol.node_messages import (
    JobAck,
    JobAssign,
    JobResult,
    JobStarted,
    NodeAsrPartial,
    NodeControl,
    NodeJobCancel,
)
from dragoman.protocol.session_messages import SessionAsrPartial, Terminal, UiEvent

VERSION: Final = 1


class _Note(Struct, frozen=True, array_like=True, tag_field="kind"):
    """One thing that an instance tells another."""


# --- to the instance that has a node's connection


class Assign(_Note, tag="assign", frozen=True, array_like=True):
    """Give a node a job, if that can be done within `ttl_ms`."""

    node_id: NodeId
    job: JobAssign
    ttl_ms: int


class TellNode(_Note, tag="tell_node", frozen=True, array_like=True):
    """Say something to a node."""

    node_id: NodeId
    message: NodeJobCancel | NodeControl


class Probe(_Note, tag="probe", frozen=True, array_like=True):
    """Does this node's connection live? Another one claims its id."""

    node_id: NodeId


class NodeFailed(_Note, tag="node_failed", frozen=True, array_like=True):
    """A node did not do what it was given, or not in time."""

    node_id: NodeId


# --- to the instance that sees to a job


class NodeSaid(_Note, tag="node_said", frozen=True, array_like=True):
    """What a node says of a job."""

    node_id: NodeId
    message: JobAck | JobStarted | NodeAsrPartial | JobResult


class Unreached(_Note, tag="unreached", frozen=True, array_like=True):
    """An attempt did not get to its node, or the node was lost with it."""

    job_id: JobId
    attempt: int
    node_id: NodeId
    had_it: bool
    """Whether the node may be at work on it."""
    is_gone: bool = False
    """Whether the node is not connected where it was believed to be."""


class Lapsed(_Note, tag="lapsed", frozen=True, array_like=True):
    """The lease of an attempt's slot ran out."""

    job_id: JobId
    attempt: int
    node_id: NodeId


class Withdraw(_Note, tag="withdraw", frozen=True, array_like=True):
    """A session does not want a job any more."""

    session_id: SessionId
    job_id: JobId


# --- to the instance that holds a session


class Ended(_Note, tag="ended", frozen=True, array_like=True):
    """A job of a session has ended."""

    session_id: SessionId
    job_id: JobId
    index: int
    terminal: Terminal


class TellSession(_Note, tag="tell_session", frozen=True, array_like=True):
    """Say something to a session that is worth nothing later."""

    session_id: SessionId
    message: SessionAsrPartial | UiEvent


class Yield(_Note, tag="yield", frozen=True, array_like=True):
    """The session goes on at the sender: give up what is held of it."""

    session_id: SessionId


class Yielded(_Note, tag="yielded", frozen=True, array_like=True):
    """What was held of a session. `is_known` is false when that was nothing."""

    session_id: SessionId
    is_known: bool
    serial: int = 0
    next_index: int = 0
    next_cut: int = 0
    unconfirmed: tuple[tuple[int, Terminal], ...] = ()
    """Sent, and perhaps not read: number and message."""
    held: tuple[tuple[int, Terminal], ...] = ()
    """Waiting for earlier ones: utterance index and message."""
    last_seq: int = -1
    """The last chunk of audio that was had."""
    audio: bytes = b""
    """Audio in chunks that was not yet cut into an utterance."""


# --- to all instances


class Hungry(_Note, tag="hungry", frozen=True, array_like=True):
    """Jobs wait at the sender: tell it of free slots, for so long."""

    for_ms: int
    jobs: int = 1
    """How many wait."""


class Leaving(_Note, tag="leaving", frozen=True, array_like=True):
    """The sender stops: send it nobody."""


class Freed(_Note, tag="freed", frozen=True, array_like=True):
    """These nodes have so many slots taken, and one free."""

    used: tuple[tuple[NodeId, int], ...]


class Probed(_Note, tag="probed", frozen=True, array_like=True):
    """Whether a node's connection lives; None: it is being asked for a sign of life."""

    node_id: NodeId
    is_alive: bool | None


Note: TypeAlias = (
    Assign
    | TellNode
    | Probe
    | NodeFailed
    | NodeSaid
    | Unreached
    | Lapsed
    | Withdraw
    | Ended
    | TellSession
    | Yield
    | Yielded
    | Hungry
    | Leaving
    | Freed
    | Probed
)


class _Letter(Struct, frozen=True, array_like=True):
    version: int
    sender: InstanceId
    notes: list[Raw]


_encoder = msgspec.msgpack.Encoder()
_letter_decoder = msgspec.msgpack.Decoder(_Letter)
_note_decoder: msgspec.msgpack.Decoder[Note] = msgspec.msgpack.Decoder(Note)

_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


class NoLetterError(ValueError):
    """Something that is no letter, or no note, of ours."""


def write_note(note: Note) -> bytes:
    """A note, to be put into a letter."""
    return _encoder.encode(note)


def write_letter(sender: InstanceId, notes: list[bytes]) -> bytes:
    """A letter with these notes."""
    return _encoder.encode(_Letter(VERSION, sender, [Raw(note) for note in notes]))


def read_letter(payload: bytes | None) -> tuple[InstanceId, list[bytes]]:
    """Who wrote a letter, and its notes, not yet read. Raises NoLetterError."""
    if payload is None:
        raise NoLetterError("no letter in it")
    try:
        letter = _letter_decoder.decode(payload)
    except _ERRORS as error:
        raise NoLetterError(f"not a letter: {str(error)[:200]}") from error
    if letter.version != VERSION:
        raise NoLetterError(f"version {letter.version}; wanted {VERSION}")
    return letter.sender, [bytes(note) for note in letter.notes]


def read_note(note: bytes) -> Note:
    """A note. Raises NoLetterError."""
    try:
        return _note_decoder.decode(note)
    except _ERRORS as error:
        raise NoLetterError(f"not a note: {str(error)[:200]}") from error
