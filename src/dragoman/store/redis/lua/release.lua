-- Gives back the slot that an attempt holds.
-- KEYS: slots, over
-- ARGV: job, attempt
-- Answers: 'released' | 'not_held'
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or math.floor(score % 1 * 4096 + 0.5) ~= tonumber(ARGV[2]) then return 'not_held' end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 'released'
