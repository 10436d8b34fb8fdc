-- Find what is due: leases, last moments to start, silences, stopping leases; and make the scheduled claimable.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; lease and interval in microseconds; limit
-- Reply    the time; 1 when another pass was here within half the interval; 1 when leases are held; what is due as
--          kind, id, record or nothing, token, number of live leases of its worker
local indexes = open_indexes()
local state = root .. 'sweep'
local lease, interval, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local got = redis.call('HMGET', state, 'last', 'hold')
local last, hold = tonumber(got[1] or nil), tonumber(got[2] or nil)
if last and this.clock - last < interval / 2 then return {this.now, 1, 0, {}} end
redis.call('HSET', state, 'last', this.now)
if not hold and last and this.clock - last > lease / 2 then hold = this.clock + lease end
local held = hold ~= nil and this.clock < hold
if held then
  redis.call('HSET', state, 'hold', string.format('%.0f', hold))
else
  redis.call('HDEL', state, 'hold')
end
for _, queue in ipairs(redis.call('SMEMBERS', root .. 'scheduled')) do
  indexes.promote(queue)
  if redis.call('EXISTS', root .. 'd:' .. queue) == 0 then redis.call('SREM', root .. 'scheduled', queue) end
end

local due, found = {}, 0
local function gather(kind, index)
  local before = found
  while found <= limit do
    local ids = redis.call(
      'ZRANGE', root .. index, '-inf', this.now, 'BYSCORE', 'LIMIT', found - before, limit + 1 - found)
    if #ids == 0 then return end
    for _, id in ipairs(ids) do
      local record, token, company = false, '', 1
      local fields, form = read(id)
      if form then record = shown(id, fields) end
      if kind == 'lease' then
        company = tonumber(redis.call('HGET', root .. 'w', fields.w or '') or 1)
      elseif kind == 'stopping' then
        token = string.match(redis.call('HGET', root .. 's', id) or '', '^%Z*')
      end
      if kind == 'stale' and (tonumber(fields.stale) or 0) > this.clock then
        redis.call('ZADD', root .. index, fields.stale, id) -- it was put off since
      elseif form or kind == 'stopping' then
        due[#due + 1] = {kind, id, record, token, company}
        found = found + 1
      else
        redis.call('ZREM', root .. index, id) -- its record was evicted
      end
    end
  end
end
if not held then gather('lease', 'lease') end
gather('deadline', 'deadline')
gather('stale', 'stale')
if not held then gather('stopping', 'sx') end

-- Names on the shelf whose values have expired.
local names = redis.call('ZRANGE', root .. 'hx', '-inf', this.now, 'BYSCORE', 'LIMIT', 0, 200)
for _, name in ipairs(names) do
  if redis.call('EXISTS', root .. 'h:' .. name) == 0 then redis.call('ZREM', root .. 'h', name) end
  redis.call('ZREM', root .. 'hx', name)
end
indexes.flush()
return {this.now, 0, held and 1 or 0, due}
