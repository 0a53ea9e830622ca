-- Remembers a session and who holds it.
-- KEYS: session, owner
-- ARGV: owner, owner_ttl_ms, ttl_ms, then fields and values
-- Answers: 'opened'
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'opened'
