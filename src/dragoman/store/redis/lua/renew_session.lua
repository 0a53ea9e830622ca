-- Goes on holding a session.
-- KEYS: owner, session
-- ARGV: owner, ttl_ms, session_ttl_ms
-- Answers: 'renewed' | 'taken'
if (redis.call('GET', KEYS[1]) or ARGV[1]) ~= ARGV[1] then return 'taken' end
if redis.call('PEXPIRE', KEYS[2], ARGV[3]) == 1 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 'renewed'
