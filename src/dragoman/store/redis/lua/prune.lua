-- Takes out of a sorted set by time what is older than allowed.
-- KEYS: seen
-- ARGV: older_ms
-- Answers: what was taken out
local time = redis.call('TIME')
local before_ms = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', before_ms, 'LIMIT', 0, 1000)
for i = 1, #old do redis.call('ZREM', KEYS[1], old[i]) end
return old
