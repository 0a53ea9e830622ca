-- Which nodes may have a hold whose lease has run out?
-- KEYS: due
-- ARGV: count_max, ttl_ms
-- Answers: their ids
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now_ms + 1, 'LIMIT', 0, ARGV[1])
