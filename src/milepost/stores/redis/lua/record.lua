-- The clock, the stored layout and the encodings of a record, which every script needs; what writes of a record leave in it and
-- beside it: operation ids and kept events; and scripts for one record.

-- name: clock
-- Begins every script.
--
-- KEYS[1]  the prefix of the namespace, `{name}:`; all other keys are built from it and share its hash tag.
-- KEYS[2]  the key of the layout. KEYS[1] never exists and KEYS[2] always does, so both nodes refuse the script while a
--          Cluster moves their slot from one node to the other.
-- ARGV[1]  the latest time of this store that the caller has seen, in microseconds. The clock never falls behind it,
--          unless it is ahead by more than CLOCK_LEAD (30 s): the server's clock was set back, or it is another server.
--          The arguments of a script itself begin at ARGV[2].
--
-- j:<id>      a record: a hash of short fields while active, one string of `field=value` lines once ended, `c` first.
--             Its lifecycle events are the fields `!<version>`: kind (empty: as the status), time and `field=value`,
--             separated by NUL; in a string, a letter stands for the value of a field of the record.
-- v:<id>      its large values by short field name; the record has a marker in their place: the byte 26 and the size
-- e:<id>      its other kept events, a list of version, kind, time, ...
-- t           the names `<type>:<status>` of the lists i:<name>, which hold ids by creation
-- l:<label>, stalled      ids by creation          k:<unique key>      ids in order of arrival, the newest last
-- q:<queue>   `<created>:<id>` by falling priority       d:<queue>, lease, deadline, stale      ids by time
--             (in `stale` it may be earlier than in the record; the sweep corrects it)
-- q:<queue>^<slot>, ring:<queue>^<key>   a subqueue (`^` is the byte 31), and names of those of one key by rank and turn
-- rings, rings:<queue>, queues:<key>     the queues that have rings, the keys of these, and the queues of a key
-- full:<slot>, fulls   subqueues that left their ring because their partition is full, and these slots
-- turn, turns          the number of the last turn, and those of subqueues and queues
-- scheduled   the queues that have, or had, scheduled jobs
-- s, sx, sk   draining leases: by id, ids by expiry, how many have a unique key
-- n, w        the number of leases of a slot and of its key (including draining ones), and of a worker
-- z, zs       ids in the order of their end, and how many outdated entries an id has there
-- zk          since when the retention of ended records is counted, if that is not their end
-- f           the feed     fence     ready:<queue>, wake:<worker>   wake-up tokens, which expire
-- ro, rm, rh  ends of jobs: counts by minute, type, queue and metric; texts of closed minutes; those of hours
-- u, u:<book> the ledger of usage: the books of days; amounts of a book by series, the byte 31 and name
-- c:<worker>  the number of the worker's last claim, ':', its operation id and the ids of the reply
-- x:<id>      for an hour: the tombstone of removed records of the id, see `operation_ids`
--
-- A script defines its functions anew at each run, and each captured local makes that slower. Therefore there are
-- globals, one table of state, and functions that are created only where they are needed.
local ARGV = ARGV -- a global is looked up by its name at each use
local root = KEYS[1]
local now = redis.call('TIME')
now = now[1] .. (#now[2] == 6 and now[2] or string.sub('00000' .. now[2], -6))
local this = {now = now, clock = now + 0}
if ARGV[1] >= now and ARGV[1] - this.clock <= 30000000 then
  this.now = string.format('%.0f', ARGV[1] + 1)
  this.clock = tonumber(this.now)
end

-- name: record
-- Prelude of every script: the encodings of a record, and draining leases. User JSON is never decoded.
--
-- What an event of an ended job need not repeat, because the record has it: its time, and unchanged fields (see `shared`).
local TIMES, SAME = {'c', 'b', 'z'}, {'s', 'p', 'm', 'e', 'a', 'w'}

-- The fields of a record, by short name, and its form (hash, text or damaged), nil if there is none.
local function read(id)
  redis.setresp(3)
  local found = redis.pcall('HGETALL', root .. 'j:' .. id)
  redis.setresp(2)
  local fields = found.map
  if fields then return fields, next(fields) and 'hash' end
  fields = {}
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

-- What events of an ended record have in common with it, and the letters in their place.
local function shared(fields)
  local status, progress, message, failure, attempt, worker = fields.s, fields.p, fields.m, fields.e, fields.a, fields.w
  return { -- in one constructor, because growth is slow
    [fields.c or ''] = 'c', [fields.b or ''] = 'b', [fields.z or ''] = 'z', [status and 's=' .. status or ''] = 's',
    [progress and 'p=' .. progress or ''] = 'p', [message and 'm=' .. message or ''] = 'm', [failure and 'e=' .. failure or ''] = 'e',
    [attempt and 'a=' .. attempt or ''] = 'a', [worker and 'w=' .. worker or ''] = 'w',
  }
end

-- The text of a record without its events. With `letters` of `shared` they are added, shortened.
local function pack(fields, letters)
  local lines, n = {'c=' .. (fields.c or ''), false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false, false}, 1 -- at its usual size: growth is slow
  local events, m = {}, 0
  for name, value in pairs(fields) do
    if #name > 1 and string.byte(name) == 33 then
      if letters then
        m = m + 1
        events[m] = name .. '=' .. string.gsub(value, '%Z+', letters)
      end
    elseif name ~= 'c' then
      n = n + 1
      lines[n] = name .. '=' .. value
    end
  end
  local text = table.concat(lines, '\n', 1, n)
  return letters and text .. '\n' .. table.concat(events, '\n') or text
end

-- The text of an ended record with its lifecycle events. It omits `u` if that equals the end.
local function pack_whole(fields)
  local updated = fields.u
  if updated == fields.z then fields.u = nil end
  local text = pack(fields, shared(fields))
  fields.u = updated
  return text
end

-- Whether there are any draining leases; checked once.
local function stops()
  if this.stops == nil then this.stops = redis.call('EXISTS', root .. 's') == 1 end
  return this.stops
end

-- Whether a draining lease has an id or its unique key.
local function parked(id, key)
  if not stops() then return false end
  if redis.call('HEXISTS', root .. 's', id) == 1 then return true end
  return key and key ~= '' and redis.call('HEXISTS', root .. 'sk', key) == 1
end

-- The earliest start of a record in microseconds, 0 if it has none; false while it is held. The same as `starts_at` of
-- `milepost.core.placement`.
local function starts_at(held, wait_groups, wake_at, not_before)
  if held then return tonumber(wake_at) or false end
  if wait_groups then return 0 end
  return tonumber(wake_at or not_before) or 0
end

-- The text of a record for the caller, with `waiting_for`.
local function shown(id, fields)
  local text = pack(fields)
  if fields.q and fields.q ~= '' and parked(id, fields.k) then
    return text .. '\nwaiting_for={"code":"previous_run_stopping"}'
  end
  return text
end

-- The same for an id, or false without a record. An ended record waits for nothing and is returned unchanged.
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

-- The text of a record with its large values in the place of their markers.
local function filled(id, text)
  if not string.find(text, '=\26', 1, true) then return text end
  return (string.gsub(text, '\n([^=\n]+)=\26%d+', function(name)
    local value = redis.call('HGET', root .. 'v:' .. id, name)
    return value and '\n' .. name .. '=' .. value
  end))
end

-- name: operation_ids
-- Prelude of scripts for transitions of callers: their operation ids, see `milepost.core.transitions.operation_ids`.
-- `open_operations()` creates the functions where they are needed.
local function open_operations()
  local O = {}

  -- The branch of a known operation, as text, or nothing.
  function O.recall(kept, op)
    local at = 0
    repeat
      at = kept and string.find(kept, op, at + 1, true)
    until not at or at % 19 == 1
    return at and string.sub(kept, at + 8, at + 8)
  end

  -- The ids that stay if another one is added, and the second of the first of them.
  function O.fresh(kept)
    kept = kept or ''
    local at, now = 1, math.floor(this.clock / 1000000)
    local function second() return tonumber(string.sub(kept, at + 9, at + 18)) end
    while #kept - at >= 1197 and math.abs(now - second()) >= 60 do at = at + 19 end
    return string.sub(kept, at), second()
  end

  function O.entry(op, branch)
    return op .. branch .. string.format('%010d', math.floor(this.clock / 1000000))
  end

  return O
end

-- name: run_writes
-- Prelude of `apply`: the operation ids of a run's writes, see `milepost.core.transitions.operation_ids`, and the events
-- that are kept in a list.

-- Whether a write was applied before: the writes of a run arrive in the order of their ids, and the newest id of its kind
-- and of the same source is at a place of a text.
local function is_superseded(ops, op, place)
  local kept = string.sub(ops, place, place + 7)
  if string.sub(kept, 1, 4) ~= string.sub(op, 1, 4) then return false end
  local a, b, c, d = string.byte(op, 5, 8)
  local e, f, g, h = string.byte(kept, 5, 8)
  return ((a * 128 + b) * 128 + c) * 128 + d <= ((e * 128 + f) * 128 + g) * 128 + h
end

-- The text with the id at its place.
local function with_run_id(ops, op, place)
  return string.format('%-' .. place - 1 .. 's', string.sub(ops, 1, place - 1)) .. op .. string.sub(ops, place + 8)
end

local function keep_event(id, version, event)
  if redis.call('RPUSH', root .. 'e:' .. id, version .. '\0' .. event) > 1000 then redis.call('LPOP', root .. 'e:' .. id) end
end

-- name: get
-- Read one record.
-- ARGV[2]   the id
-- Reply     the text of the record, or nothing
local text = look(ARGV[2])
return text and filled(ARGV[2], text)

-- name: events
-- Read the kept events of one record.
-- ARGV[2]   the id
-- Reply     the events, unordered, each as version, kind, time and fields, separated by NUL
local fields, form = read(ARGV[2])
if not form then return {} end
local events = redis.call('LRANGE', root .. 'e:' .. ARGV[2], 0, -1)
for name, value in pairs(fields) do
  if string.byte(name) == 33 then events[#events + 1] = string.sub(name, 2) .. '\0' .. value end
end
return events

-- name: layout
-- Read the version of the layout; in an empty namespace set that of the caller.
-- ARGV[2]   the version of the caller
-- Reply     the version of the namespace
local found = redis.call('GET', root .. 'layout')
if not found then
  redis.call('SET', root .. 'layout', ARGV[2])
  found = ARGV[2]
end
return found

-- name: now
-- Read the clock.
-- Reply     the time, in microseconds since 1970
return this.now
