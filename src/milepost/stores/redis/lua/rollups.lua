-- Statistics of ended jobs by minute and hour.

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
