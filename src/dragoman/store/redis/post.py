"""How do letters between instances live on the server? A stream for each inbox, with a consumer group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dragoman.core.ids import InstanceId
from dragoman.store.post import DeadLetter, Letter, Posting
from dragoman.store.redis.connection import CommandError
from dragoman.store.redis.keys import Keys
from dragoman.store.redis.records import read_number
from dragoman.store.redis.scripts import load_script
from dragoman.store.redis.server_time import ServerTime
from dragoman.store.redis.servers import Servers

_INBOX_TTL_MS: Final = 86_400_000
_DEAD_TTL_MS: Final = 7 * 86_400_000
_NEW_WORK_PART: Final = 0.8
"""How full an inbox may be when new work is still put into it. The rest is for what ends work."""

_CLOSED_TTL_MS: Final = 60_000

_POST = load_script("post")
_CLOSE = load_script("close_inbox")

SCRIPTS = (_POST, _CLOSE)


class RedisPost:
    """See Post."""

    def __init__(
        self,
        servers: Servers,
        reader: Servers,
        keys: Keys,
        time: ServerTime,
        *,
        group: str,
        length_max: int,
        dead_max: int,
    ) -> None:
        self._servers = servers
        self._reader = reader
        """A connection that may wait for letters: nothing else must wait behind that."""
        self._keys = keys
        self._time = time
        self._group = group
        self._length_max = length_max
        self._dead_max = dead_max

    async def post(self, to: InstanceId, payload: bytes, *, is_new_work: bool) -> Posting:
        """See Store."""
        self._time.check()
        limit = int(self._length_max * _NEW_WORK_PART) if is_new_work else self._length_max
        keys = (self._keys.inbox(to), self._keys.closed(to))
        answer = await self._servers.run(_POST, keys, (limit, payload, _INBOX_TTL_MS))
        return Posting(answer.decode())

    async def receive(self, me: InstanceId, count: int, block_ms: int) -> tuple[Letter, ...]:
        """See Store."""
        return await self._read(me, me, count, block_ms)

    def acknowledge(self, inbox: InstanceId, ids: Sequence[str]) -> None:
        """See Store. What was seen to is deleted, so that the length of an inbox is its backlog."""
        if ids:
            key = self._keys.inbox(inbox)
            self._servers.tell(key, "XACK", key, self._group, *ids)
            self._servers.tell(key, "XDEL", key, *ids)

    async def unacknowledged(self, inbox: InstanceId, me: InstanceId, idle_ms: int, count: int) -> tuple[Letter, ...]:
        """See Store. Of another's inbox also what nobody has taken out yet."""
        self._time.check()
        again = await self._claim(self._keys.inbox(inbox), me, idle_ms, count)
        if inbox == me or len(again) >= count:
            return again
        return (*again, *await self._read(inbox, me, count - len(again), 0))

    async def bury(self, inbox: InstanceId, letter: Letter, payload: bytes, reason: str) -> None:
        """See Store."""
        self._time.check()
        key = self._keys.dead_letters(inbox)
        now_ms = self._time.now_ms()
        fields: tuple[Any, ...] = (
            *("payload", payload, "reason", reason, "letter", letter.id, "deliveries", letter.deliveries),
            *("first_ms", now_ms - letter.age_ms, "last_ms", now_ms),
        )
        await self._servers.call(key, "XADD", key, "MAXLEN", "~", self._dead_max, "*", *fields)
        self._servers.tell(key, "PEXPIRE", key, _DEAD_TTL_MS)

    async def dead_letters(self, inbox: InstanceId, count: int) -> tuple[DeadLetter, ...]:
        """See Store."""
        self._time.check()
        key = self._keys.dead_letters(inbox)
        entries = await self._servers.call(key, "XRANGE", key, "-", "+", "COUNT", count)
        return tuple(_dead(entry.decode(), dict(zip(flat[::2], flat[1::2], strict=False))) for entry, flat in entries)

    async def close_inbox(self, me: InstanceId) -> bool:
        """See Store."""
        keys = (self._keys.inbox(me), self._keys.closed(me))
        return bool(await self._servers.run(_CLOSE, keys, (_CLOSED_TTL_MS,)) == b"closed")

    async def backlog(self, inbox: InstanceId) -> int:
        """See Store."""
        key = self._keys.inbox(inbox)
        return int(await self._servers.call(key, "XLEN", key))

    # --- how

    async def _claim(self, key: bytes, me: InstanceId, idle_ms: int, count: int) -> tuple[Letter, ...]:
        try:
            pending = await self._servers.call(key, "XPENDING", key, self._group, "IDLE", idle_ms, "-", "+", count)
            if not pending:
                return ()
            deliveries = {entry: times for entry, _, _, times in pending}
            claimed = await self._servers.call(key, "XCLAIM", key, self._group, me, idle_ms, *deliveries)
        except CommandError as error:
            if not _is_groupless(error):
                raise
            return ()
        return tuple(
            self._letter(entry, flat, deliveries=int(deliveries.get(entry, 0)) + 1)
            for entry, flat in (item for item in claimed if item)
        )

    async def _read(self, inbox: InstanceId, me: InstanceId, count: int, block_ms: int) -> tuple[Letter, ...]:
        key = self._keys.inbox(inbox)
        # To the server, blocking for 0 ms means for ever.
        servers, waits = (self._reader, ("BLOCK", block_ms)) if block_ms > 0 else (self._servers, ())
        words = ("XREADGROUP", "GROUP", self._group, me, "COUNT", count, *waits, "STREAMS", key, ">")
        try:
            answer = await servers.call(key, *words)
        except CommandError as error:
            if not _is_groupless(error):
                raise
            await self._make_group(key)
            answer = await servers.call(key, *words)
        if not answer:
            return ()
        return tuple(self._letter(entry, flat, deliveries=1) for entry, flat in answer[0][1])

    async def _make_group(self, key: bytes) -> None:
        """Make the consumer group, from the beginning: what came before it was there is for it too."""
        making = self._servers.call(key, "XGROUP", "CREATE", key, self._group, "0", "MKSTREAM")
        # At once: if this is cancelled meanwhile, the stream must not stay for ever.
        self._servers.tell(key, "PEXPIRE", key, _INBOX_TTL_MS)
        try:
            await making
        except CommandError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _letter(self, entry: bytes, flat: list[bytes] | None, *, deliveries: int) -> Letter:
        fields = dict(zip(flat[::2], flat[1::2], strict=False)) if flat else {}
        age_ms = self._time.age_ms(int(entry.partition(b"-")[0]))
        return Letter(id=entry.decode(), payload=fields.get(b"letter"), age_ms=age_ms, deliveries=deliveries)


def _is_groupless(error: CommandError) -> bool:
    """Whether there is no consumer group: nobody has read yet, or the inbox was deleted, perhaps while we waited."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))


def _dead(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        id=entry,
        payload=fields.get(b"payload", b""),
        reason=fields.get(b"reason", b"").decode(errors="replace"),
        letter_id=fields.get(b"letter", b"").decode(errors="replace"),
        deliveries=read_number(fields, b"deliveries"),
        first_ms=read_number(fields, b"first_ms"),
        last_ms=read_number(fields, b"last_ms"),
    )
