-- Sets fields of a hash, if it is there.
-- KEYS: hash
-- ARGV: 'set' | 'new' (only fields that are missing), then fields and values
-- Answers: 'noted' | 'unknown'
if redis.call('EXISTS', KEYS[1]) == 0 then return 'unknown' end
if ARGV[1] == 'set' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 2))
else
  for i = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 'noted'
