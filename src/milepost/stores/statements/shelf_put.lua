-- Put a value on the shelf, if its key has the version that the caller expects.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; operation id; key; value; expected version (0: no such key, empty: any); milliseconds to
--          live (empty: for ever)
-- Reply    the new version, or nothing when the key has another
local op, name, value, expected, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key = root .. 'h:' .. name
local got = redis.call('HMGET', key, 'n', 'o')
if got[2] == op then return tonumber(got[1]) end
if expected ~= '' and (got[1] or '0') ~= expected then return false end
local version = redis.call('INCR', root .. 'hv')
redis.call('DEL', key)
redis.call('HSET', key, 'v', value, 'n', version, 'o', op)
redis.call('ZADD', root .. 'h', 0, name)
if ttl ~= '' then
  redis.call('PEXPIRE', key, ttl)
  redis.call('ZADD', root .. 'hx', string.format('%.0f', this.clock + ttl * 1000), name)
else
  redis.call('ZREM', root .. 'hx', name)
end
return version
