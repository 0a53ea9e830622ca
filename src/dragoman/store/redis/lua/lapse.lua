-- Gives back the holds of a node whose lease has run out, and notes when the next one does.
-- KEYS: slots, over, due
-- ARGV: node
-- Answers: {job, attempt, ...} of each hold given back
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now_ms + 1, 'WITHSCORES')
local answer = {}
for i = 1, #lapsed, 2 do
  redis.call('ZREM', KEYS[1], lapsed[i])
  redis.call('ZREM', KEYS[2], lapsed[i])
  answer[i] = lapsed[i]
  answer[i + 1] = math.floor(lapsed[i + 1] % 1 * 4096 + 0.5)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[1] then
  redis.call('ZADD', KEYS[3], first[2], ARGV[1])
else
  redis.call('ZREM', KEYS[3], ARGV[1])
end
return answer
