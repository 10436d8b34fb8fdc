-- The sweep, which finds what is due, the purge, which deletes old records, and the statistics of ended jobs by minute and
-- hour, which the sweep closes.

-- name: sweep
-- Find what is due: leases, start deadlines, stale jobs, draining leases. Make scheduled jobs that are due claimable.
-- ARGV[2..] lease and interval in microseconds; the most items of each kind; how long the feed keeps events, in
--           microseconds; the task queue of this process (empty: none); how many microseconds later jobs of other task
--           queues are due
-- Reply     the time; 1 if another sweep ran within half the interval; 1 if leases are held; the due items as kind, id,
--           record or nothing, token, number of live leases of its worker; 1 if there are more items of some kind; the
--           closed groups that jobs wait for
local indexes = open_indexes()
local state = root .. 'sweep'
local lease, interval, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local task_queue, others_from = ARGV[6], this.clock - tonumber(ARGV[7])
local got = redis.call('HMGET', state, 'last', 'held_since', 'held_until')
local last, since, held_until = tonumber(got[1] or nil), tonumber(got[2] or nil), tonumber(got[3] or nil)
if last and last > this.clock and last - this.clock <= 30000000 then
  this.now, this.clock = string.format('%.0f', last), last
end
local went_back = last and last > this.clock
if last and not went_back and this.clock - last < interval / 2 then return {this.now, 1, 0, {}, 0, {}} end
redis.call('HSET', state, 'last', this.now)

-- The time until which leases are due, and the hold to keep, as in `hold_of` of stores/sweep.py.
local due_until
if went_back then
  since, held_until = this.clock, this.clock + lease
elseif not last or this.clock - last <= math.floor(lease / 2) then
  if not since or this.clock >= held_until then due_until, since = this.clock, nil end
else
  if since and this.clock >= since + lease then due_until, since = since + lease - math.floor(lease / 4), nil end
  since, held_until = since or this.clock, this.clock + lease
end
if since then
  redis.call('HSET', state, 'held_since', string.format('%.0f', since), 'held_until', string.format('%.0f', held_until))
else
  redis.call('HDEL', state, 'held_since', 'held_until')
end

-- Move leases from a clock that was ahead to the current one, but not below `lease` from now.
local function turn_back(index, field)
  local bound, moved = this.clock + math.max(lease, 30000000), {}
  local found = redis.call('ZRANGE', root .. index, string.format('(%.0f', bound), '+inf', 'BYSCORE', 'WITHSCORES')
  for i = 1, #found, 2 do
    local expires = math.max(this.clock + lease, tonumber(found[i + 1]) - (last - this.clock))
    expires = string.format('%.0f', expires)
    redis.call('ZADD', root .. index, expires, found[i])
    if field then redis.pcall('HSET', root .. 'j:' .. found[i], field, expires) end
  end
end
if went_back then
  turn_back('lease', 'L')
  turn_back('sx')
end
for _, queue in ipairs(redis.call('SMEMBERS', root .. 'scheduled')) do
  indexes.promote(queue)
  if redis.call('EXISTS', root .. 'd:' .. queue) == 0 then redis.call('SREM', root .. 'scheduled', queue) end
end

local due, more = {}, false

-- Whether a job waits for another task queue, whose own processes come first.
local function is_elsewhere(id)
  local fields = redis.pcall('HMGET', root .. 'j:' .. id, 'D', 'task_queue', 'stale')
  return fields[1] == 'external' and (fields[2] or '') ~= task_queue and (tonumber(fields[3] or nil) or 0) > others_from
end

-- Collect what is due of a kind; skip at most LOOKED_AT jobs of other task queues.
local LOOKED_AT = 5000
local function gather(kind, index, until_)
  local kept, passed = 0, 0
  while true do
    local ids = redis.call('ZRANGE', root .. index, '-inf', string.format('%.0f', until_), 'BYSCORE',
      'LIMIT', kept + passed, limit + 1)
    if #ids == 0 then return end
    for _, id in ipairs(ids) do
      if kind == 'stale' and passed < LOOKED_AT and is_elsewhere(id) then
        passed = passed + 1
      elseif passed == LOOKED_AT then
        return
      elseif kept == limit then
        more = true
        return
      else
        local record, token, sibling_leases = false, '', 1
        local fields, form = read(id)
        if form then record = shown(id, fields) end
        if kind == 'lease' then
          sibling_leases = tonumber(redis.call('HGET', root .. 'w', fields.w or '') or 1)
        elseif kind == 'stopping' then
          token = string.match(redis.call('HGET', root .. 's', id) or '', '^%Z*')
        end
        if kind == 'stale' and (tonumber(fields.stale) or 0) > this.clock then
          redis.call('ZADD', root .. index, fields.stale, id) -- it was postponed since
        elseif form or kind == 'stopping' then
          due[#due + 1] = {kind, id, record, token, sibling_leases}
          kept = kept + 1
        else
          redis.call('ZREM', root .. index, id) -- its record was evicted
        end
      end
    end
  end
end
if due_until then gather('lease', 'lease', due_until) end
gather('deadline', 'deadline', this.clock)
gather('stale', 'stale', this.clock)
if due_until then gather('stopping', 'sx', due_until) end

-- Remove old events from the feed, except the newest, which marks its end.
local newest = redis.call('XREVRANGE', root .. 'f', '+', '-', 'COUNT', 1)[1]
if newest then
  local bound = string.format('%.0f-0', math.max(0, (this.clock - tonumber(ARGV[5])) / 1000))
  if tonumber(string.match(newest[1], '^%d+')) < tonumber(string.match(bound, '^%d+')) then bound = newest[1] end
  redis.call('XTRIM', root .. 'f', 'MINID', bound)
end

close_minutes()

-- Remove the names of expired values.
local names = redis.call('ZRANGE', root .. 'hx', '-inf', this.now, 'BYSCORE', 'LIMIT', 0, 200)
for _, name in ipairs(names) do
  if redis.call('EXISTS', root .. 'h:' .. name) == 0 then redis.call('ZREM', root .. 'h', name) end
  redis.call('ZREM', root .. 'hx', name)
end

-- The closed groups that jobs wait for.
local closing = redis.call('SMEMBERS', root .. 'closing')
local closed = closing[1] and groups().closed(closing) or {}
if closing[1] then
  redis.call('DEL', root .. 'closing')
  for _, group in ipairs(closed) do redis.call('SADD', root .. 'closing', group) end
end
indexes.flush()
return {this.now, 0, due_until == this.clock and 0 or 1, due, more and 1 or 0, closed}

-- name: purge
-- Remove records whose retention is over, with everything that belongs to them; the same as stores/retention.py.
-- ARGV[2]   since when the retention of those to remove is counted at the latest, in microseconds
-- ARGV[3]   the most to remove
-- ARGV[4]   the most levels of children that go together
-- ARGV[5..] the states of ended members
-- Reply     how many were removed; of how many others the retention is counted anew; 1 if there may be more
local indexes, family = open_indexes(), groups()
local bound, limit, depth = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local seen, gone, later, in_gone = {}, {}, {}, {}

-- What a purge asks about a record, false if there is none.
local function kin(id)
  if seen[id] == nil then
    local fields, form = read(id)
    local ended = form and tonumber(fields.z)
    seen[id] = form and {
      fields = fields,
      parent = family.parent(fields),
      since = ended and tonumber(redis.call('HGET', root .. 'zk', id) or ended),
    } or false
  end
  return seen[id]
end

-- Add a record that has ended to `gone`, after its children; return since when it is counted if it has to stay.
local function add(id, levels)
  local found = kin(id)
  if not found.since or family.has_open_children(id) or family.is_awaited(id, found.fields) then return this.clock end
  if found.since >= bound then return math.min(found.since, this.clock) end
  for i = 5, levels > 0 and #ARGV or 0 do
    for _, child in ipairs(family.members('children:' .. family.plain(id), ARGV[i], limit - #gone)) do
      local stays = not in_gone[child] and kin(child) and add(child, levels - 1)
      if stays then return stays end
    end
  end
  if #gone < limit then
    gone[#gone + 1] = id
    in_gone[id] = true
  end
end

local ids = redis.call('LRANGE', root .. 'z', 0, limit - 1)
local passed, taken, kept = 0, {}, 0
for _, id in ipairs(ids) do
  local outdated = tonumber(redis.call('HGET', root .. 'zs', id) or 0)
  if outdated > 0 then
    if redis.call('HINCRBY', root .. 'zs', id, -1) <= 0 then redis.call('HDEL', root .. 'zs', id) end
  else
    local found = not in_gone[id] and kin(id)
    if found and found.since and found.since >= bound and not later[id] then break end
    if found and found.since and not later[id] then
      if #gone >= limit then break end
      local top, size = id, #gone
      for _ = 1, depth do
        local above = seen[top].since and seen[top].parent
        if not above or in_gone[above] or not kin(above) then break end
        top = above
      end
      local stays = add(top, depth)
      if stays then
        for i = #gone, size + 1, -1 do
          in_gone[gone[i]] = nil
          gone[i] = nil
        end
        later[id] = stays
        if seen[top].since then
          seen[top].since, later[top] = stays, stays
        end
      elseif not in_gone[id] then
        break
      end
    end
    taken[id] = true
  end
  passed = passed + 1
end
if passed > 0 then redis.call('LTRIM', root .. 'z', passed, -1) end
for id, since in pairs(later) do
  family.count_retention(id, since, taken[id])
  kept = kept + 1
end
local emptied = {}
for _, id in ipairs(gone) do
  local fields = seen[id].fields
  emptied[(fields.t or '') .. ':' .. (fields.s or '')] = true
  indexes.forget(id, fields, taken[id] and 'lqghdLak' or 'lqghdLake') -- some have left the list of ended records
  redis.call('HDEL', root .. 'zk', id)
end
indexes.flush()
for name in pairs(emptied) do
  if redis.call('EXISTS', root .. 'i:' .. name) == 0 then redis.call('SREM', root .. 't', name) end
end
return {#gone, kept, (#gone >= limit or passed == limit) and 1 or 0}

-- name: close_minutes
-- Prelude of `sweep`. `close_minutes()` adds the ends of the minutes that are over to the rollups, in the form that `merge`
-- of `milepost.core.rollups` writes. It deletes rollups that are too old, and the oldest ones above the size limit.
local function close_minutes()
  local current = math.floor(this.clock / 60000000)
  local flat = redis.call('HGETALL', root .. 'ro')
  local minutes, hours, gone = {}, {}, {}

  local function add(numbers, number, series, metric, count)
    numbers[number] = numbers[number] or {}
    numbers[number][series] = numbers[number][series] or {}
    local metrics = numbers[number][series]
    metrics[metric] = (metrics[metric] or 0) + tonumber(count)
  end

  for i = 1, #flat, 2 do
    local minute, series, metric = string.match(flat[i], '^(%d+)\31(.*)\31([^\31]*)$')
    minute = tonumber(minute)
    if minute < current then
      add(minutes, minute, series, metric, flat[i + 1])
      add(hours, math.floor(minute / 60), series, metric, flat[i + 1])
      gone[#gone + 1] = flat[i]
    end
  end
  if #gone == 0 then return end
  for from = 1, #gone, 4000 do redis.call('HDEL', root .. 'ro', unpack(gone, from, math.min(from + 3999, #gone))) end

  local function keep(key, dropped, numbers, oldest, bytes)
    for number, added in pairs(numbers) do
      local field, lines = string.format('%.0f', number), {}
      for line in string.gmatch(redis.call('HGET', key, field) or '', '[^\30]+') do
        local series, counts = string.match(line, '^(.*)\31([^\31]*)$')
        for metric, count in string.gmatch(counts, '(%S+)=(%d+)') do add(numbers, number, series, metric, count) end
      end
      for series, metrics in pairs(added) do
        local words = {}
        for metric, count in pairs(metrics) do words[#words + 1] = metric .. '=' .. string.format('%.0f', count) end
        lines[#lines + 1] = series .. '\31' .. table.concat(words, ' ')
      end
      redis.call('HSET', key, field, table.concat(lines, '\30'))
    end
    local found = redis.call('HKEYS', key)
    for i = 1, #found do found[i] = tonumber(found[i]) end
    table.sort(found, function(a, b) return a > b end)
    for i = 1, #found do
      local field = string.format('%.0f', found[i])
      bytes = bytes - redis.call('HSTRLEN', key, field)
      if bytes < 0 or found[i] <= oldest then
        redis.call('HDEL', key, field)
        local last = tonumber(redis.call('HGET', root .. 'sweep', dropped) or nil) or -1
        if found[i] > last then redis.call('HSET', root .. 'sweep', dropped, field) end
      end
    end
  end
  keep(root .. 'rm', 'minutes', minutes, current - 2880, 3500000)
  keep(root .. 'rh', 'hours', hours, math.floor(current / 60) - 1440, 1500000)
end

-- name: rollups
-- Read the ends of jobs in the minutes or hours since one of them.
-- ARGV[2]   1 for hours
-- ARGV[3]   the number of the first minute or hour
-- ARGV[4]   the most that are kept
-- Reply     the time; numbers and texts of what is closed; the counts of what is not, as a flat hash; the last number that
--           was dropped before its time, or nothing
local hourly = ARGV[2] == '1'
local key, width = root .. (hourly and 'rh' or 'rm'), hourly and 3600000000 or 60000000
local last = math.floor(this.clock / width)
local first = math.max(tonumber(ARGV[3]), last - tonumber(ARGV[4]))
local closed = {}
for from = first, last, 4000 do
  local fields = {}
  for number = from, math.min(from + 3999, last) do fields[#fields + 1] = string.format('%.0f', number) end
  local texts = redis.call('HMGET', key, unpack(fields))
  for i = 1, #fields do
    if texts[i] then
      closed[#closed + 1] = fields[i]
      closed[#closed + 1] = texts[i]
    end
  end
end
return {this.now, closed, redis.call('HGETALL', root .. 'ro'), redis.call('HGET', root .. 'sweep', hourly and 'hours' or 'minutes')}
