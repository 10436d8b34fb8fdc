-- Read the newest records that indexes match, from a position on. Lists are merged, a few entries at a time, with
-- the smallest index in the lead and the others asked about its members; nothing is sorted.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; limit; position (created and id, empty: none); created after and before (empty: none);
--          whether only stalled ones (1 or 0); the number of types and each; of statuses and each; of labels and each
-- Reply    ids and texts, newest first; then created and id from which to go on, when the script ended before the lists
-- Bound    it looks at most at 5,000 entries and reads at most 1,000 records or 1 MiB
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

-- The smallest leads; what it does not answer is asked of the others.
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
local chunk = #sources == 1 and math.min(limit + 1, 200) or 16

-- The next entry of a source that comes after the position.
local function head(source)
  while true do
    local id = source.entries[source.at]
    if not id then
      if source.done then return end
      source.entries =
        redis.call('ZRANGE', source.key, high, low, 'BYSCORE', 'REV', 'LIMIT', source.offset, chunk, 'WITHSCORES')
      source.offset, source.at = source.offset + chunk, 1
      source.done = #source.entries < 2 * chunk
      if #source.entries == 0 then return end
    else
      local created = tonumber(source.entries[source.at + 1])
      if not from_created or created < from_created or (created == from_created and id < from_id) then
        return id, created
      end
      source.at = source.at + 2
    end
  end
end

local heads = {}
for i = #sources, 1, -1 do
  local id, created = head(sources[i])
  if id then
    heads[#heads + 1] = {id = id, created = created, source = sources[i]}
  end
end

local function newer(a, b)
  return a.created > b.created or (a.created == b.created and a.id > b.id)
end
table.sort(heads, newer)

-- Take the newest entry and put its source back where it belongs: few lists, so an insertion is cheapest.
local function pop()
  local first = heads[1]
  if not first then return end
  local id, created, source = first.id, first.created, first.source
  source.at = source.at + 2
  first.id, first.created = head(source)
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
  return id, created
end

-- Those of a few ids that are in at least one of the keys.
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

local reply, n, looked, bytes = {}, 0, 0, 0
local last_id, last_created
while n < 2 * limit and looked < 5000 and bytes < 1048576 do
  local ids, createds = {}, {}
  local most = #asks > 0 and 100 or math.min(limit - n / 2, 100)
  while #ids < most do
    local id, created = pop()
    if not id then break end
    ids[#ids + 1], createds[#createds + 1] = id, created
  end
  if #ids == 0 then return reply end
  looked = looked + #ids
  local keys, places = {}, {}
  local found = {}
  for i, ask in ipairs(asks) do found[i] = among(ids, ask) end
  for i = 1, #ids do
    local all = true
    for j = 1, #asks do all = all and found[j][i] end
    if all then
      keys[#keys + 1] = root .. 'j:' .. ids[i]
      places[#places + 1] = i
    end
  end
  local texts = #keys > 0 and redis.call('MGET', unpack(keys)) or {}
  for k = 1, #keys do
    local i = places[k]
    local id, text = ids[i], texts[k]
    if not text then
      local fields, form = read(id)
      if form then
        fields.c = fields.c or string.format('%.0f', createds[i])
        text = shown(id, fields)
      end
    elseif string.sub(text, 1, 2) ~= 'c=' then
      text = 'c=' .. string.format('%.0f', createds[i]) .. '\n' .. text
    end
    last_id, last_created = id, createds[i]
    if text then
      reply[n + 1], reply[n + 2] = id, text
      n = n + 2
      bytes = bytes + #text
      if n >= 2 * limit then return reply end
    end
  end
  last_id, last_created = ids[#ids], createds[#ids]
end
if n >= 2 * limit or not last_id then return reply end
reply[n + 1] = {string.format('%.0f', last_created), last_id}
return reply
