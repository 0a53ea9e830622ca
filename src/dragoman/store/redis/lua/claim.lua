-- Takes or keeps a lease that is free, one's own, or of somebody who has lost it.
-- KEYS: lease
-- ARGV: owner, displaced ('': nobody), ttl_ms
-- Answers: '' | who holds it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[2] then return holder end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ''
