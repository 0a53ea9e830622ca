-- Trades a token of a session for the next one, and takes the session over.
-- KEYS: session, owner
-- ARGV: schema, token, token after, owner, owner_ttl_ms, ttl_ms
-- Answers: 'unknown' | 'unreadable' | 'wrong_token' | {owner before, its fields and values}; what was parked is taken
--          out
local known = redis.call('HMGET', KEYS[1], 'v', 'token', 'previous')
if not known[1] then return 'unknown' end
if known[1] ~= ARGV[1] then return 'unreadable' end
if known[2] ~= ARGV[2] and known[3] ~= ARGV[2] then return 'wrong_token' end
local session = redis.call('HGETALL', KEYS[1])
local before = redis.call('GET', KEYS[2]) or ''
for i = 1, #session, 2 do
  if string.sub(session[i], 1, 7) == 'parked:' then redis.call('HDEL', KEYS[1], session[i]) end
end
redis.call('HDEL', KEYS[1], 'parkings')
redis.call('HSET', KEYS[1], 'previous', ARGV[2], 'token', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
table.insert(session, 1, before)
return session
