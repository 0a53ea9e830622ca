"""How does an hour go by on a real server without waiting, and what is left on it at the end?

The time of a server cannot be moved. So everything under the prefix of one store is made that much older: what has a
time to live has less of it, and what carries a time carries an earlier one. All commands go by the connections of the
store, so that they come after what it has said before.
"""

from __future__ import annotations

from typing import Final

from dragoman.store.redis.store import RedisStore

PERMANENT: Final = frozenset({b"v1:store:born"})
"""Keys without a time to live, behind the prefix. Nothing else may stay for ever."""

# How old a letter is cannot be changed: its id says when it was posted.
_AGE: Final = """#!lua flags=allow-cross-slot-keys
local by_ms = tonumber(ARGV[2])

local function age_scores(key)
  local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #members, 2 do
    redis.call('ZADD', key, string.format('%.17g', members[i + 1] - by_ms), members[i])
  end
end

local function age_field(key, field)
  local value = redis.call('HGET', key, field)
  if value then redis.call('HSET', key, field, string.format('%.0f', value - by_ms)) end
end

local function age_deliveries(key)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    for _, entry in ipairs(redis.call('XPENDING', key, group[2], '-', '+', 1000)) do
      redis.call('XCLAIM', key, group[2], entry[2], 0, entry[1], 'IDLE', entry[3] + by_ms, 'JUSTID')
    end
  end
end

for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do
  local left_ms = redis.call('PTTL', key)
  if left_ms >= 0 and left_ms <= by_ms then
    redis.call('DEL', key)
  elseif left_ms > by_ms then
    redis.call('PEXPIRE', key, string.format('%.0f', left_ms - by_ms))
  end
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then age_scores(key) end
  if kind == 'hash' then age_field(key, 'opened_ms') end
  if kind == 'stream' then age_deliveries(key) end
end
return redis.status_reply('OK')
"""

_CLEAR: Final = """#!lua flags=allow-cross-slot-keys
local immortal = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do
  if redis.call('PTTL', key) == -1 then immortal[#immortal + 1] = key end
  redis.call('DEL', key)
end
return immortal
"""


async def age(store: RedisStore, prefix: str, by_ms: int) -> None:
    """Let that many milliseconds go by for everything on the servers."""
    await store._servers.everywhere("EVAL", _AGE, 0, prefix, by_ms)


async def clear(store: RedisStore, prefix: str) -> list[bytes]:
    """Delete everything. Answers the keys that would have stayed for ever and may not."""
    answers = await store._servers.everywhere("EVAL", _CLEAR, 0, prefix)
    allowed = {prefix.encode() + b":" + name for name in PERMANENT}
    return sorted(key for immortal in answers for key in immortal if key not in allowed)
