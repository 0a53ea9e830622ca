-- Writes what the others need to know of a node, if the caller holds it.
-- KEYS: owner, snapshot, presence, capabilities
-- ARGV: owner, ttl_ms, snapshot, 'present' | 'absent', then services and whether each is ready
-- Answers: 'published' | 'taken'
if (redis.call('GET', KEYS[1]) or ARGV[1]) ~= ARGV[1] then return 'taken' end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
redis.call('DEL', KEYS[4])
redis.call('HSET', KEYS[4], unpack(ARGV, 5))
redis.call('PEXPIRE', KEYS[4], ARGV[2])
if ARGV[4] == 'present' then
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
else
  redis.call('DEL', KEYS[3])
end
return 'published'
