-- Creates a job unless it is there.
-- KEYS: job
-- ARGV: ttl_ms, then fields and values of the new job
-- Answers: 'new', or the fields and values of the job that is there
if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('HGETALL', KEYS[1]) end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'opened_ms', string.format('%.0f', now_ms), unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 'new'
