-- Put a value on the shelf, if its key has the version that the caller expects.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; operation id; key; value; expected version (0: no such key, empty: any); milliseconds to
--          live (empty: for ever)
-- Reply    the new version, or nothing when the key has another
local op, name, value, expected, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key = root .. 'h:' .. name
local got = call('HMGET', key, 'n', 'o')
if got[2] == op then return tonumber(got[1]) end
if expected ~= '' and (got[1] or '0') ~= expected then return false end
local version = call('INCR', root .. 'hv')
call('DEL', key)
call('HSET', key, 'v', value, 'n', version, 'o', op)
call('ZADD', root .. 'h', 0, name)
if ttl ~= '' then
  call('PEXPIRE', key, ttl)
  call('ZADD', root .. 'hx', format('%.0f', clock + ttl * 1000), name)
else
  call('ZREM', root .. 'hx', name)
end
return version
