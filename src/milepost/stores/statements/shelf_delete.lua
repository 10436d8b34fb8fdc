-- Take a key off the shelf; a repetition within a minute gets the first answer.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; operation id; key
-- Reply    1 when it was there, else 0
local repeated = redis.call('GET', root .. 'ho:' .. ARGV[2])
if repeated then return 1 end
local there = redis.call('DEL', root .. 'h:' .. ARGV[3])
redis.call('ZREM', root .. 'h', ARGV[3])
redis.call('ZREM', root .. 'hx', ARGV[3])
if there == 1 then redis.call('SET', root .. 'ho:' .. ARGV[2], '1', 'PX', 60000) end
return there
