-- Closes an inbox that nobody will read any more, unless letters lie in it.
-- KEYS: inbox, closed
-- ARGV: ttl_ms
-- Answers: 'closed' | 'not_empty'
if redis.call('XLEN', KEYS[1]) > 0 then return 'not_empty' end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
return 'closed'
