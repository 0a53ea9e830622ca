-- Takes a slot at the first node of a ranking that has one free.
-- KEYS: due, then the slots of each node of the ranking
-- ARGV: job, attempt (the last one made), lease_ms, then for each node its id and how many slots it has
-- Answers: {'reserved' | 'full', slots taken at each node tried}
-- A hold is a member of its node's sorted set; its score is the deadline (ms), with the attempt as 4096ths behind the
-- point. A node that holds any attempt of the job counts as full, and so does one whose key is no sorted set.
local due = KEYS[1]
local job, attempt, lease_ms = ARGV[1], tonumber(ARGV[2]) + 1, tonumber(ARGV[3])
local time = redis.call('TIME')
local deadline_ms = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms
local answer = {'full'}
for i = 2, #KEYS do
  local slots, slots_max = KEYS[i], tonumber(ARGV[2 * i + 1])
  local used = redis.pcall('ZCARD', slots)
  if type(used) ~= 'number' then used = slots_max end
  answer[i] = used
  if used < slots_max then
    local score = string.format('%.17g', deadline_ms + attempt / 4096)
    redis.call('ZADD', due, 'LT', score, ARGV[2 * i])
    if redis.call('PTTL', due) < lease_ms * 4 then redis.call('PEXPIRE', due, lease_ms * 4) end
    if redis.call('ZADD', slots, 'NX', score, job) == 1 then
      if redis.call('PTTL', slots) < lease_ms * 4 then redis.call('PEXPIRE', slots, lease_ms * 4) end
      answer[1] = 'reserved'
      answer[i] = used + 1
      return answer
    end
  end
end
return answer
