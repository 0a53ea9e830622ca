-- Moves a job, if it is where the caller believes.
-- KEYS: job
-- ARGV: sources (states it may be in, each between spaces), attempt, node ('*': any), state, attempt after,
--       node after ('=': as it is), ttl_ms (0: forget it), then a terminal message if it ends
-- Answers: {'moved', node before} | {'stale', state, attempt}
local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node')
if not job[1] then return {'stale', '', 0} end
if job[2] ~= ARGV[2] or (ARGV[3] ~= '*' and job[3] ~= ARGV[3])
  or not string.find(ARGV[1], ' ' .. job[1] .. ' ', 1, true) then
  return {'stale', job[1], job[2]}
end
if ARGV[7] == '0' then
  redis.call('DEL', KEYS[1])
  return {'moved', job[3]}
end
local node = ARGV[6]
if node == '=' then node = job[3] end
redis.call('HSET', KEYS[1], 'state', ARGV[4], 'attempt', ARGV[5], 'node', node)
if ARGV[8] then
  redis.call('HSET', KEYS[1], 'terminal', ARGV[8])
  redis.call('HDEL', KEYS[1], 'request')
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return {'moved', job[3]}
