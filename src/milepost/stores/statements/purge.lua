-- Remove records that ended before a moment, with all that belongs to them.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; how long records are kept, in microseconds; the most to remove
-- Reply    how many were removed; 1 when there may be more
local indexes = open_indexes()
local bound, limit = this.clock - tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = redis.call('LRANGE', root .. 'z', 0, limit - 1)
local removed, passed, emptied = 0, 0, {}
for _, id in ipairs(ids) do
  local outdated = tonumber(redis.call('HGET', root .. 'zs', id) or 0)
  if outdated > 0 then
    if redis.call('HINCRBY', root .. 'zs', id, -1) <= 0 then redis.call('HDEL', root .. 'zs', id) end
  else
    local fields, form = read(id)
    local ended = tonumber(fields.z)
    if ended and ended >= bound then break end
    if ended then
      emptied[(fields.t or '') .. ':' .. (fields.s or '')] = true
      fields.z = nil
      indexes.forget(id, fields)
      removed = removed + 1
    end
  end
  passed = passed + 1
end
if passed > 0 then redis.call('LTRIM', root .. 'z', passed, -1) end
indexes.flush()
for name in pairs(emptied) do
  if redis.call('EXISTS', root .. 'i:' .. name) == 0 then redis.call('SREM', root .. 't', name) end
end
return {removed, passed == #ids and passed == limit and 1 or 0}
