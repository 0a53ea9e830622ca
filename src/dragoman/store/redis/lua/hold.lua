-- Writes again the holds that are known to be there, where they are missing.
-- KEYS: slots, due
-- ARGV: node, lease_ms, then job and attempt of each
-- Answers: slots taken
local lease_ms = tonumber(ARGV[2])
local time = redis.call('TIME')
local deadline_ms = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms
for i = 3, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'NX', string.format('%.17g', deadline_ms + ARGV[i + 1] / 4096), ARGV[i])
end
if #ARGV > 2 then
  redis.call('ZADD', KEYS[2], 'LT', deadline_ms, ARGV[1])
  for i = 1, 2 do
    if redis.call('PTTL', KEYS[i]) < lease_ms * 4 then redis.call('PEXPIRE', KEYS[i], lease_ms * 4) end
  end
end
return redis.call('ZCARD', KEYS[1])
