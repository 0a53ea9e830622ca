-- Marks a hold as one whose attempt is over. With a lease, it ends then at the latest.
-- KEYS: slots, over, due
-- ARGV: job, attempt, lease_ms ('': the lease stays), node
-- Answers: 'orphaned' | 'not_held'
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or math.floor(score % 1 * 4096 + 0.5) ~= tonumber(ARGV[2]) then return 'not_held' end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local ttl_ms = redis.call('PTTL', KEYS[1])
redis.call('ZADD', KEYS[2], now_ms, ARGV[1])
redis.call('PEXPIRE', KEYS[2], ttl_ms)
local deadline_ms = ARGV[3] ~= '' and now_ms + ARGV[3] + score % 1
if deadline_ms and deadline_ms < tonumber(score) then
  redis.call('ZADD', KEYS[1], string.format('%.17g', deadline_ms), ARGV[1])
  redis.call('ZADD', KEYS[3], 'LT', deadline_ms, ARGV[4])
  if redis.call('PTTL', KEYS[3]) < ttl_ms then redis.call('PEXPIRE', KEYS[3], ttl_ms) end
end
return 'orphaned'
