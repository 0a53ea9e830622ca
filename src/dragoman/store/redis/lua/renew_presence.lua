-- Says that an instance lives.
-- KEYS: presence
-- ARGV: record, ttl_ms
-- Answers: 'renewed' | 'returned' (it was not there any more) | 'taken' (somebody else has the name)
local known = redis.call('GET', KEYS[1])
if known and known ~= ARGV[1] then return 'taken' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return known and 'renewed' or 'returned'
