-- The key-value store.

-- name: kv_get
-- Read the value of a key.
-- ARGV[2]   the key
-- Reply     value and version, or nothing
local got = redis.call('HMGET', root .. 'h:' .. ARGV[2], 'v', 'n')
return got[1] and got

-- name: kv_scan
-- Read values in the order of their keys.
-- ARGV[2..] the lowest and the highest name, in the syntax of ZRANGE BYLEX; limit
-- Reply     key, value and version of each
local low, high, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local reply, n, offset = {}, 0, 0
while n < 3 * limit do
  local names = redis.call('ZRANGE', root .. 'h', low, high, 'BYLEX', 'LIMIT', offset, 200)
  for _, name in ipairs(names) do
    local got = redis.call('HMGET', root .. 'h:' .. name, 'v', 'n')
    if got[1] then
      reply[n + 1], reply[n + 2], reply[n + 3] = name, got[1], got[2]
      n = n + 3
      if n >= 3 * limit then break end
    end
  end
  if #names < 200 then break end
  offset = offset + 200
end
return reply

-- name: kv_put
-- Set a value if its key has the expected version. A repetition within a minute gets the first answer, whatever was set
-- since.
-- ARGV[2..] operation id; key; value; expected version (0: no such key, empty: any); milliseconds to live (empty: for
--           ever); the version of the layout, in case the namespace was emptied meanwhile
-- Reply     the new version, or nothing if the key has another one
local op, name, value, expected, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key = root .. 'h:' .. name
local repeated = redis.call('GET', root .. 'ho:' .. op)
if repeated then return tonumber(repeated) end
if expected ~= '' and (redis.call('HGET', key, 'n') or '0') ~= expected then return false end
redis.call('SET', KEYS[2], ARGV[7], 'NX')
local version = redis.call('INCR', root .. 'hv')
redis.call('DEL', key)
redis.call('HSET', key, 'v', value, 'n', version)
redis.call('SET', root .. 'ho:' .. op, version, 'PX', 60000)
redis.call('ZADD', root .. 'h', 0, name)
if ttl ~= '' then
  redis.call('PEXPIRE', key, ttl)
  redis.call('ZADD', root .. 'hx', string.format('%.0f', this.clock + ttl * 1000), name)
else
  redis.call('ZREM', root .. 'hx', name)
end
return version

-- name: kv_delete
-- Delete a key. A repetition within a minute gets the first answer.
-- ARGV[2..] operation id; key
-- Reply     1 if it existed, else 0
local repeated = redis.call('GET', root .. 'ho:' .. ARGV[2])
if repeated then return tonumber(repeated) end
local there = redis.call('DEL', root .. 'h:' .. ARGV[3])
redis.call('ZREM', root .. 'h', ARGV[3])
redis.call('ZREM', root .. 'hx', ARGV[3])
redis.call('SET', root .. 'ho:' .. ARGV[2], there, 'PX', 60000)
return there
