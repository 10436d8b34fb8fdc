-- Read values of the shelf in the order of their keys.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the lowest and the highest name, as ZRANGE BYLEX takes them; limit
-- Reply    key, value and version of each
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
