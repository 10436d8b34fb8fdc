-- Remove records that ended before a moment, with all that belongs to them.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; how long records are kept, in microseconds; the most to remove
-- Reply    how many were removed; 1 when there may be more
local bound, limit = clock - tonumber(ARGV[2]), tonumber(ARGV[3])
local ids = call('LRANGE', root .. 'z', 0, limit - 1)
local removed, passed, emptied = 0, 0, {}
for _, id in ipairs(ids) do
  local outdated = tonumber(call('HGET', root .. 'zs', id) or 0)
  if outdated > 0 then
    if call('HINCRBY', root .. 'zs', id, -1) <= 0 then call('HDEL', root .. 'zs', id) end
  else
    local fields, form = read(id)
    local ended = tonumber(fields.z)
    if ended and ended >= bound then break end
    if ended then
      emptied[(fields.t or '') .. ':' .. (fields.s or '')] = true
      fields.z = nil
      forget(id, fields)
      removed = removed + 1
    end
  end
  passed = passed + 1
end
if passed > 0 then call('LTRIM', root .. 'z', passed, -1) end
flush()
for name in pairs(emptied) do
  if call('EXISTS', root .. 'i:' .. name) == 0 then call('SREM', root .. 't', name) end
end
return {removed, passed == #ids and passed == limit and 1 or 0}
