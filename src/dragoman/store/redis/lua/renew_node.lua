-- Goes on holding a node.
-- KEYS: owner, snapshot, presence, capabilities
-- ARGV: owner, ttl_ms
-- Answers: 'renewed' | 'taken'
if (redis.call('GET', KEYS[1]) or ARGV[1]) ~= ARGV[1] then return 'taken' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for i = 2, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 'renewed'
