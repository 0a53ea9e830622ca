-- A node lives: renews the holds of the jobs it runs, gives back those it is done with.
-- KEYS: slots, over
-- ARGV: lease_ms, orphaned_for_ms, 'listed' | 'all', then the jobs that the node lists
-- Answers: {slots taken, then job and attempt of each hold given back}
local holds = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
if #holds == 0 then return {0} end
local lease_ms, orphaned_for_ms, lists = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == 'listed'
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local listed = {}
for i = 4, #ARGV do listed[ARGV[i]] = true end
local over_ms = {}
local orphans = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #orphans, 2 do over_ms[orphans[i]] = tonumber(orphans[i + 1]) end
local answer = {#holds / 2}
for i = 1, #holds, 2 do
  local job, attempt = holds[i], holds[i + 1] % 1
  local is_running = listed[job]
  if not lists then is_running = not over_ms[job] end
  if is_running then
    local deadline_ms = math.max(holds[i + 1], now_ms + lease_ms + attempt)
    redis.call('ZADD', KEYS[1], string.format('%.17g', deadline_ms), job)
  elseif lists and over_ms[job] and over_ms[job] + orphaned_for_ms <= now_ms then
    redis.call('ZREM', KEYS[1], job)
    redis.call('ZREM', KEYS[2], job)
    answer[1] = answer[1] - 1
    answer[#answer + 1] = job
    answer[#answer + 1] = math.floor(attempt * 4096 + 0.5)
  end
end
local ttl_ms = math.max(redis.call('PTTL', KEYS[1]), lease_ms * 4)
redis.call('PEXPIRE', KEYS[1], ttl_ms)
redis.call('PEXPIRE', KEYS[2], ttl_ms)
return answer
