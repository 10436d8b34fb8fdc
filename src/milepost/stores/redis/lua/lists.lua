-- Lists and counts of records, and the ledger of usage (`core/ledger.py`).

-- name: select
-- Read the newest matching records after a position. The smallest index leads, and the others are checked for its
-- members. Lists are merged a few entries at a time, without sorting.
-- ARGV[2..] limit; position (created and id, empty: none); created after and before (empty: none); whether only stalled
--           ones (1 or 0); the number of types and each; of statuses and each; of labels and each
-- Reply     ids and texts, newest first; then created and id from which to continue, if the script reached its bound.
--           A damaged record gets the creation time of its index entry, which a list needs to continue after it
-- Bound     5,000 entries, 1,000 records or 1 MiB
local arg = 1
local function shift()
  arg = arg + 1
  return ARGV[arg]
end
local limit, from_created, from_id = tonumber(shift()), tonumber(shift()), shift()
local after, before = tonumber(shift()), tonumber(shift())
local only_stalled = shift() == '1'

local function names()
  local set, some_given = {}, false
  for _ = 1, tonumber(shift()) do
    set[shift()] = true
    some_given = true
  end
  return some_given and set
end
local types, statuses = names(), names()
local others = {}
for _ = 1, tonumber(shift()) do others[#others + 1] = root .. 'l:' .. shift() end
if only_stalled then others[#others + 1] = root .. 'stalled' end

local lists, size = {}, 0
for _, name in ipairs(redis.call('SMEMBERS', root .. 't')) do
  local kind, status = string.match(name, '^(.*):([^:]*)$')
  if (not types or types[kind]) and (not statuses or statuses[status]) then
    lists[#lists + 1] = root .. 'i:' .. name
    if #others > 0 then size = size + redis.call('ZCARD', root .. 'i:' .. name) end
  end
end

-- The smallest index leads; the others are checked for its members.
local lead, asks = lists, {}
local smallest, where = size, nil
for i = 1, #others do
  local card = redis.call('ZCARD', others[i])
  if card < smallest then smallest, where = card, i end
end
for i = 1, #others do
  if i ~= where then asks[#asks + 1] = {others[i]} end
end
if where then
  lead = {others[where]}
  if types or statuses then asks[#asks + 1] = lists end
end

local high = before and '(' .. string.format('%.0f', before) or '+inf'
if from_created and (not before or from_created < before) then high = string.format('%.0f', from_created) end
local low = after and string.format('%.0f', after) or '-inf'

local sources = {}
for i = 1, #lead do sources[i] = {key = lead[i], at = 1, offset = 0, entries = {}} end
local chunk = #sources == 1 and math.min(#asks > 0 and 200 or limit + 1, 200) or 16

-- Read more entries of a source; false if there are none. Skip entries of the same microsecond before the position.
local function more(source)
  if source.done then return false end
  local entries =
    redis.call('ZRANGE', source.key, high, low, 'BYSCORE', 'REV', 'LIMIT', source.offset, chunk, 'WITHSCORES')
  source.offset, source.at, source.entries = source.offset + chunk, 1, entries
  source.done = #entries < 2 * chunk
  while from_created and entries[source.at] do
    if tonumber(entries[source.at + 1]) ~= from_created or entries[source.at] < from_id then break end
    source.at = source.at + 2
  end
  return entries[source.at] ~= nil or more(source)
end

-- The next entry of a source, or nothing.
local function head(source)
  if source.entries[source.at] or more(source) then
    return source.entries[source.at], tonumber(source.entries[source.at + 1])
  end
end

local function newer(a, b)
  return a.created > b.created or (a.created == b.created and a.id > b.id)
end

local heads = {}
for i = 1, #sources > 1 and #sources or 0 do
  local id, created = head(sources[i])
  if id then heads[#heads + 1] = {id = id, created = created, source = sources[i]} end
end
table.sort(heads, newer)

-- The next entries, newest first. With several lists, take the newest head and insert its list again at the right
-- place; there are few lists, so insertion is cheapest.
local function take(most)
  local ids, createds, n = {}, {}, 0
  local only = #sources == 1 and sources[1]
  while only and n < most and (only.entries[only.at] or more(only)) do
    local entries, at = only.entries, only.at
    while n < most and entries[at] do
      n = n + 1
      ids[n], createds[n] = entries[at], entries[at + 1]
      at = at + 2
    end
    only.at = at
  end
  while n < most do
    local first = heads[1]
    if not first then break end
    n = n + 1
    ids[n], createds[n] = first.id, first.created
    first.source.at = first.source.at + 2
    first.id, first.created = head(first.source)
    if not first.id then
      table.remove(heads, 1)
    else
      local i = 1
      while heads[i + 1] and newer(heads[i + 1], first) do
        heads[i] = heads[i + 1]
        i = i + 1
      end
      heads[i] = first
    end
  end
  return ids, createds
end

-- The ids that are in at least one of the keys, as a set of positions.
local function among(ids, keys)
  local found = {}
  for _, key in ipairs(keys) do
    local scores = redis.call('ZMSCORE', key, unpack(ids))
    for i = 1, #ids do
      if scores[i] then found[i] = true end
    end
  end
  return found
end

local prefix = root .. 'j:'
local out, texts, n, looked, bytes = {}, {}, 0, 0, 0
local last_id, last_created
while n < limit and looked < 5000 and bytes < 1048576 do
  local ids, createds = take(#asks > 0 and 100 or math.min(limit - n, 1000))
  if #ids == 0 then return {out, texts} end
  looked = looked + #ids
  if #asks > 0 then
    local found, kept, kept_createds = {}, {}, {}
    for i = 1, #asks do found[i] = among(ids, asks[i]) end
    for i = 1, #ids do
      local all = true
      for j = 1, #asks do all = all and found[j][i] end
      if all then
        kept[#kept + 1] = ids[i]
        kept_createds[#kept] = createds[i]
      end
    end
    last_id, last_created = ids[#ids], createds[#ids]
    ids, createds = kept, kept_createds
  else
    last_id, last_created = ids[#ids], createds[#ids]
  end
  local keys = {}
  for i = 1, #ids do keys[i] = prefix .. ids[i] end
  local records = #keys > 0 and redis.call('MGET', unpack(keys)) or {}
  for i = 1, #ids do
    local record = records[i] or look(ids[i])
    if record then
      if not string.find(record, '^c=%d') then
        record = string.match(record, '^(.-)\n!') or record
        record = record .. '\nc=' .. string.format('%d', createds[i])
      end
      n = n + 1
      out[n], texts[n] = ids[i], record
      bytes = bytes + #record
      if n == limit then return {out, texts} end
    end
  end
end
if n >= limit or not last_id then return {out, texts} end
return {out, texts, {string.format('%d', last_created), last_id}}

-- name: oldest
-- Read the oldest records of a status.
-- ARGV[2..]   the status; limit
-- Reply       ids and texts, oldest first
-- Bound       the limit, for each type
local status, limit = ':' .. ARGV[2], tonumber(ARGV[3])
if limit < 1 then return {{}, {}} end
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', root .. 't')) do
  if string.sub(name, -#status) == status then
    local entries = redis.call('ZRANGE', root .. 'i:' .. name, 0, limit - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do found[#found + 1] = {id = entries[i], created = tonumber(entries[i + 1])} end
  end
end
table.sort(found, function(a, b) return a.created < b.created or (a.created == b.created and a.id < b.id) end)
local ids, texts = {}, {}
for i = 1, math.min(limit, #found) do
  local text = look(found[i].id)
  if text then
    -- A damaged record gets the creation time of its index entry, as in `select`.
    if not string.find(text, '^c=%d') then text = text .. '\nc=' .. string.format('%d', found[i].created) end
    ids[#ids + 1], texts[#texts + 1] = found[i].id, text
  end
end
return {ids, texts}

-- name: count
-- Count the records of an index, or by type and status.
-- ARGV[2]   the name of an index (empty: each list of a type and a status)
-- Reply     the number of the index, or the name `<type>:<status>` and the number of each list
if ARGV[2] ~= '' then return {ARGV[2], redis.call('ZCARD', root .. ARGV[2])} end
local reply = {}
for _, name in ipairs(redis.call('SMEMBERS', root .. 't')) do
  reply[#reply + 1] = name
  reply[#reply + 1] = redis.call('ZCARD', root .. 'i:' .. name)
end
return reply

-- name: usage
-- Read books of the ledger.
-- ARGV[2..] the names of the books
-- Reply     for each a flat hash: series, byte 31, name -> amount in millionths
local found = {}
for i = 2, #ARGV do found[i - 1] = redis.call('HGETALL', root .. 'u:' .. ARGV[i]) end
return found
