-- Read a value of the shelf.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the key
-- Reply    value and version, or nothing
local got = redis.call('HMGET', root .. 'h:' .. ARGV[2], 'v', 'n')
return got[1] and got
