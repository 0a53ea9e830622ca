-- Gives a job to another owner, if it is still the dead one's and has not ended.
-- KEYS: job
-- ARGV: schema, dead, owner, ended (states, each between spaces), ttl_ms
-- Answers: the fields and values of the job as it is then; none if there is none
local job = redis.call('HMGET', KEYS[1], 'v', 'owner', 'state')
if job[1] == ARGV[1] and job[2] == ARGV[2] and job[3] and not string.find(ARGV[4], ' ' .. job[3] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'owner', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return redis.call('HGETALL', KEYS[1])
