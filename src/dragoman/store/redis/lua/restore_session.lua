-- Writes again what its holder knows of a session, where it is missing.
-- KEYS: session, owner
-- ARGV: owner, owner_ttl_ms, ttl_ms, then fields and values
-- Answers: 'mine' | 'taken'
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return 'taken' end
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV, 4)) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'mine'
