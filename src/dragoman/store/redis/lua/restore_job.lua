-- Writes again what the owner knows of a job, where it is missing or behind.
-- KEYS: job
-- ARGV: owner, attempt, states that are not behind at this attempt, ended (states, each between spaces), ttl_ms,
--       opened_for_ms, then fields and values
-- Answers: 'restored' | 'kept' | 'taken'
local job = redis.call('HMGET', KEYS[1], 'owner', 'state', 'attempt')
local attempt = tonumber(job[3])
if job[1] and job[2] and attempt then
  local state = ' ' .. job[2] .. ' '
  if job[1] ~= ARGV[1] or string.find(ARGV[4], state, 1, true) then return 'taken' end
  local ahead = attempt - ARGV[2]
  if ahead > 0 or (ahead == 0 and string.find(ARGV[3], state, 1, true)) then return 'kept' end
end
local time = redis.call('TIME')
local opened_ms = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[6]
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'opened_ms', string.format('%.0f', opened_ms), unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 'restored'
