-- Keeps terminal messages for a session without a connection, and the session itself, for a while.
-- KEYS: session, owner
-- ARGV: owner ('': nobody holds it, so it is kept no longer than it is already), keep_ms, who was seen to hold it
--       ('': nobody, '*': whoever it is), then serial and message of each
-- Answers: 'parked' | 'unknown' | 'taken'
if redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
local owner, keep_ms = ARGV[1], tonumber(ARGV[2])
if owner == '' then
  if ARGV[3] ~= '*' and (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return 'taken' end
  keep_ms = math.min(keep_ms, redis.call('PTTL', KEYS[1]))
elseif (redis.call('GET', KEYS[2]) or owner) ~= owner then
  return 'taken'
end
if keep_ms <= 0 then
  redis.call('DEL', KEYS[1], KEYS[2])
  return 'parked'
end
for i = 4, #ARGV, 2 do
  local number = redis.call('HINCRBY', KEYS[1], 'parkings', 1)
  redis.call('HSET', KEYS[1], 'parked:' .. ARGV[i] .. ':' .. number, ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], keep_ms)
if owner ~= '' then
  redis.call('SET', KEYS[2], owner, 'PX', keep_ms)
elseif redis.call('PTTL', KEYS[2]) > keep_ms then
  redis.call('PEXPIRE', KEYS[2], keep_ms)
end
return 'parked'
