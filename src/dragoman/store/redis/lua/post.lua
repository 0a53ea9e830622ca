-- Puts a letter into an inbox, unless too many lie in it.
-- KEYS: inbox, closed
-- ARGV: length_max, payload, ttl_ms
-- Answers: 'posted' | 'full' | 'gone'
if redis.call('EXISTS', KEYS[2]) == 1 then return 'gone' end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 'full' end
redis.call('XADD', KEYS[1], '*', 'letter', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'posted'
