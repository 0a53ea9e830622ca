-- Gives a lease back, unless it is another's.
-- KEYS: lease, then keys that go with it
-- ARGV: owner
-- Answers: 'released' | 'not_held'
if (redis.call('GET', KEYS[1]) or ARGV[1]) ~= ARGV[1] then return 'not_held' end
redis.call('DEL', unpack(KEYS))
return 'released'
