-- Prelude, after record.lua, of every script that writes records: their indexes, counts, and who is to be woken.
-- Moves are collected and written by `flush`, once for each index, whatever the number of records. The claim queues
-- and the schedule are written at once, because a claim in the same script reads them.
local moves, listed, counts, ready, woken = {}, {}, {n = {}, w = {}}, {}, {}
local TOKENS = 64

-- Put a member into an index, or with the score false take it out; the last word counts.
local function move(index, member, score)
  local members = moves[index]
  if not members then
    members = {}
    moves[index] = members
  end
  members[member] = score
end

local function count(hash, name, by)
  counts[hash][name] = (counts[hash][name] or 0) + by
end

-- How many leases a slot has, those included that this script has not written yet.
local function held(slot)
  return tonumber(call('HGET', root .. 'n', slot) or 0) + (counts.n[slot] or 0)
end

local function queue_member(id, created)
  return (#created == 16 and created or format('%016.0f', created)) .. ':' .. id
end

-- Make a record with a queue claimable, scheduled or neither.
local function offer(id, fields)
  if parked(id, fields.k) then return end
  local due = tonumber(fields.n)
  if due and due > clock then
    call('ZADD', root .. 'd:' .. fields.q, fields.n, id)
    call('SADD', root .. 'scheduled', fields.q)
    -- An idle worker does not know when to look: it learns that from its next claim.
    if call('ZRANK', root .. 'd:' .. fields.q, id) == 0 then ready[fields.q] = (ready[fields.q] or 0) + 1 end
  else
    call('ZADD', root .. 'q:' .. fields.q, 0 - (tonumber(fields.y) or 0), queue_member(id, fields.c))
    ready[fields.q] = (ready[fields.q] or 0) + 1
  end
end

-- Offer a record again by its id, when it has a queue: it is due, or what it waited for has ended.
local function offer_again(id)
  local got = try('HMGET', root .. 'j:' .. id, 'q', 'c', 'n', 'k', 'y')
  if got.err or not got[1] or got[1] == '' or not got[2] then return end
  offer(id, {q = got[1], c = got[2], n = got[3] or nil, k = got[4] or nil, y = got[5] or nil})
end

-- Make those of a queue claimable that have come due.
local function promote(queue)
  local index = root .. 'd:' .. queue
  local due = call('ZRANGE', index, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)
  for i = 1, #due do
    call('ZREM', index, due[i])
    offer_again(due[i])
  end
end

-- A field as it was: `old` has what was overwritten, false where there was nothing.
local function was(old, fields, name)
  local value = old[name]
  if value == nil then value = fields[name] end
  if value == '' then return false end
  return value or false
end

local function some(value)
  return value ~= nil and value ~= '' and value or false
end

-- Move a record between the indexes that `touched` names.
local function place(id, old, fields, touched)
  if touched.list then
    local type0, status0 = was(old, fields, 't'), was(old, fields, 's')
    if status0 ~= some(fields.s) or type0 ~= some(fields.t) then
      if status0 then move('i:' .. (type0 or '') .. ':' .. status0, id, false) end
      if fields.s then
        local name = (fields.t or '') .. ':' .. fields.s
        listed[name] = true
        move('i:' .. name, id, fields.c)
      end
    end
  end
  if touched.queue then
    local queue0, queue1 = was(old, fields, 'q'), some(fields.q)
    local created0 = was(old, fields, 'c')
    if queue0 then
      if call('ZREM', root .. 'q:' .. queue0, queue_member(id, created0)) == 0 then
        call('ZREM', root .. 'd:' .. queue0, id)
      end
    end
    if queue1 then offer(id, fields) end
  end
  if touched.deadline then
    if fields.N and not some(fields.T) and not some(fields.z) then
      move('deadline', id, fields.N)
    elseif was(old, fields, 'N') then
      move('deadline', id, false)
    end
  end
  if touched.lease then
    local lease0, lease1 = was(old, fields, 'L'), some(fields.L)
    if lease0 then
      if not lease1 then move('lease', id, false) end
      count('n', was(old, fields, 'S') or '', -1)
      count('w', was(old, fields, 'w') or '', -1)
    end
    if lease1 then
      move('lease', id, lease1)
      count('n', fields.S or '', 1)
      count('w', fields.w or '', 1)
    end
  end
  if touched.label then
    local labels0, labels1 = was(old, fields, 'l'), some(fields.l)
    for pair in gmatch(labels0 or '', '[^\31]+') do move('l:' .. pair, id, false) end
    for pair in gmatch(labels1 or '', '[^\31]+') do move('l:' .. pair, id, fields.c) end
  end
  if touched.stalled then
    if some(fields.stalled) then
      move('stalled', id, fields.c)
    elseif was(old, fields, 'stalled') then
      move('stalled', id, false)
    end
  end
  if touched.key then
    local key0, key1 = was(old, fields, 'k'), some(fields.k)
    if key0 and key0 ~= key1 then move('k:' .. key0, id, false) end
    if key1 then move('k:' .. key1, id, fields.c) end
  end
  if touched.stale then
    if fields.stale then
      move('stale', id, fields.stale)
    elseif was(old, fields, 'stale') then
      move('stale', id, false)
    end
  end
  if touched.ended then
    local ended0, ended1 = was(old, fields, 'z'), some(fields.z)
    if ended0 and ended0 ~= ended1 then call('HINCRBY', root .. 'zs', id, 1) end
    if ended1 and ended0 ~= ended1 then call('RPUSH', root .. 'z', id) end
  end
end

local EVERYTHING =
  {list = true, queue = true, lease = true, label = true, stalled = true, key = true, stale = true, ended = true,
    deadline = true}

-- Take a record out of every index, with its events, and the record itself.
local function forget(id, fields)
  place(id, fields, {}, EVERYTHING)
  call('DEL', root .. 'j:' .. id, root .. 'e:' .. id)
end

-- Let idle workers know of `many` claimable records of a queue.
local function announce(queue, many)
  local list = root .. 'ready:' .. queue
  local tokens = {}
  for i = 1, math.min(many, TOKENS) do tokens[i] = '1' end
  local length = call('RPUSH', list, unpack(tokens))
  if length > TOKENS then call('LTRIM', list, 0, TOKENS - 1) end
  if length == #tokens then call('EXPIRE', list, 3600) end
end

local function announce_one(queue)
  if call('LLEN', root .. 'ready:' .. queue) == 0 then announce(queue, 1) end
end

-- Write what was collected.
local function flush()
  for index, members in pairs(moves) do
    local out, into, n, m = {}, {}, 0, 0
    for member, score in pairs(members) do
      if score then
        into[m + 1], into[m + 2] = score, member
        m = m + 2
        if m == 2000 then
          call('ZADD', root .. index, unpack(into))
          into, m = {}, 0
        end
      else
        n = n + 1
        out[n] = member
        if n == 2000 then
          call('ZREM', root .. index, unpack(out))
          out, n = {}, 0
        end
      end
    end
    if n > 0 then call('ZREM', root .. index, unpack(out)) end
    if m > 0 then call('ZADD', root .. index, unpack(into)) end
  end
  for name in pairs(listed) do call('SADD', root .. 't', name) end
  for hash, names in pairs(counts) do
    for name, by in pairs(names) do
      if by ~= 0 then
        if call('HINCRBY', root .. hash, name, by) <= 0 then call('HDEL', root .. hash, name) end
        if hash == 'n' and by < 0 and name ~= '' and call('EXISTS', root .. 'q:' .. name) == 1 then
          announce_one(name)
        end
      end
    end
  end
  for queue, many in pairs(ready) do announce(queue, many) end
  for worker in pairs(woken) do
    local list = root .. 'wake:' .. worker
    call('LPUSH', list, '1')
    call('LTRIM', list, 0, 7)
    call('EXPIRE', list, 60)
  end
end

