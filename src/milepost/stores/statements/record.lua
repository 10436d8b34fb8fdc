-- Prelude of every script that reads records: the clock, the forms of a record, and what keeps one from being claimed.
-- Knows no status. User JSON is carried as text and never decoded.
--
-- KEYS[1]  the prefix of the namespace, `{name}:`; all other keys are built from it and share its hash tag.
-- KEYS[2]  the key of the layout. The one is never there and the other is: while a Cluster moves their slot from one node
--          to another, both refuse the script.
-- ARGV[1]  the latest time of this store that the caller has seen, in microseconds.
--
-- j:<id>      a record: a hash of short fields while it lives, at rest one text of `field=value` lines, `c` first.
--             Its lifecycle events are the fields `!<version>`: kind (empty: as the status), time and `field=value`,
--             separated by NUL; at rest a letter stands for what a field of the record says.
-- e:<id>      its other kept events, a list of version, kind, time, ...
-- t           the names `<type>:<status>` of the lists i:<name>, which hold ids by creation
-- l:<label>, stalled, k:<unique key>      ids by creation
-- q:<queue>   `<created>:<id>` by falling priority       d:<queue>, lease, deadline, stale      ids by time
--             (that of `stale` may be earlier than the record says: it is moved on when it comes up)
-- scheduled   the queues that have, or had, a d:<queue>
-- s, sx, sk   stopping leases: what they are by id, ids by expiry, how many hold a unique key
-- n, w        how many leases a slot (stopping ones too) and a worker has
-- z, zs       ids in the order of their end, and how often an id stands there that has not ended like that any more
-- f           the feed     fence     c:<worker>, x:<id>, ready:<queue>, wake:<worker>   for a minute or so
--
-- A script defines its functions anew each time it runs, and each local that a function uses from outside makes that
-- dearer: hence the globals, one table of state, and functions that are only made where they are needed.
local root = KEYS[1]
local this = redis.call('TIME')
this.now = this[1] .. string.format('%06d', this[2])
if ARGV[1] >= this.now then this.now = string.format('%.0f', ARGV[1] + 1) end
this.clock = tonumber(this.now)

-- What an event at rest need not repeat, because the record says it: its time, and fields that are still the same.
local TIMES, SAME = {'c', 'b', 'z'}, {'s', 'p', 'm', 'e', 'a', 'w'}

-- The fields of a record, by short name, and its form: nil when there is none.
local function read(id)
  local flat = redis.pcall('HGETALL', root .. 'j:' .. id)
  local fields = {}
  if not flat.err then
    for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
    return fields, flat[1] and 'hash'
  end
  local text = redis.pcall('GET', root .. 'j:' .. id)
  if type(text) ~= 'string' then return fields, 'damaged' end
  local events = string.find(text, '\n!', 1, true) or #text + 1
  for name, value in string.gmatch(string.sub(text, 1, events - 1), '([^=\n]+)=([^\n]*)') do fields[name] = value end
  fields.u = fields.u or fields.z
  local whole = {}
  for _, name in ipairs(TIMES) do whole[name] = fields[name] end
  for _, name in ipairs(SAME) do whole[name] = fields[name] and name .. '=' .. fields[name] end
  text = string.gsub(string.sub(text, events), '[^%z\n]+', whole)
  for name, value in string.gmatch(text, '(![^=\n]*)=([^\n]*)') do fields[name] = value end
  return fields, 'text'
end

-- The text of a record, without its events; those are added to `events`, when it is given.
local function pack(fields, events)
  local lines, n, m = {'c=' .. (fields.c or '')}, 1, 0
  for name, value in pairs(fields) do
    if #name > 1 and string.byte(name) == 33 then
      if events then
        m = m + 1
        events[m] = name .. '=' .. value
      end
    elseif name ~= 'c' then
      n = n + 1
      lines[n] = name .. '=' .. value
    end
  end
  return table.concat(lines, '\n')
end

-- The text of a record at rest, with its lifecycle events at the end. It leaves out what it can: `u` when that is its end.
local function pack_whole(fields)
  local updated, events, short = fields.u, {}, {}
  if updated == fields.z then fields.u = nil end
  local text = pack(fields, events)
  fields.u = updated
  for i = 1, #TIMES do
    local value = fields[TIMES[i]]
    if value then short[value] = TIMES[i] end
  end
  for i = 1, #SAME do
    local value = fields[SAME[i]]
    if value then short[SAME[i] .. '=' .. value] = SAME[i] end
  end
  events = string.gsub(table.concat(events, '\n'), '[^%z\n]+', short)
  return text .. '\n' .. events
end

-- Whether there are stopping leases at all; looked at once.
local function stops()
  if this.stops == nil then this.stops = redis.call('EXISTS', root .. 's') == 1 end
  return this.stops
end

-- Whether a stopping lease stands in the way of an id or of its unique key.
local function parked(id, key)
  if not stops() then return false end
  if redis.call('HEXISTS', root .. 's', id) == 1 then return true end
  return key and key ~= '' and redis.call('HEXISTS', root .. 'sk', key) == 1
end

-- The text of a record for the caller, with what it waits for.
local function shown(id, fields)
  local text = pack(fields)
  if fields.q and fields.q ~= '' and parked(id, fields.k) then
    return text .. '\nwaiting_for=the previous run to stop'
  end
  return text
end

-- The same, of an id that may have no record: then false. One at rest waits for nothing and is given as it is.
local function look(id)
  local fields, form = {}, nil
  local flat = redis.pcall('HGETALL', root .. 'j:' .. id)
  if flat.err then
    local text = redis.pcall('GET', root .. 'j:' .. id)
    if type(text) == 'string' then return text end
    form = 'damaged'
  end
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return (form or flat[1]) and shown(id, fields) or false
end

