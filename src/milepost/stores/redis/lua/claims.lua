-- Claims of workers, and what wakes a waiting worker.

-- name: announce
-- Prelude of `indexes`, and of the code of `lua_new_records.py`.
-- Wake waiting workers for `many` claimable records of a queue.
local function announce(queue, many)
  local list, tokens = root .. 'ready:' .. queue, {}
  for i = 1, math.min(many, 64) do tokens[i] = '1' end
  local length = redis.call('RPUSH', list, unpack(tokens))
  if length > 64 then redis.call('LTRIM', list, 0, 63) end
  if length == #tokens then redis.call('EXPIRE', list, 3600) end
end

-- name: claim
-- Part of `apply`: choose the jobs that a worker's claim starts. `open_claim` is called once, after the writes. It reads
-- the claim from ARGV and sets `claim`, whose functions take turns with the changes that `apply` applies.
local function open_claim()
  local worker, op, number, wanted = shift(), shift(), shift(), shift()
  local queues, names = {}, {}
  for i = 1, tonumber(shift()) do
    names[i] = shift()
    -- A pause is that of the type; a name may be `type@queue`.
    queues[i] = {name = names[i], type = string.match(names[i], '^[^@]*'), limit = tonumber(shift())}
    queues[i].at, queues[i].passed, queues[i].heads, queues[i].last = 1, 0, {}, false
  end
  local transition, starts = tonumber(shift()), tonumber(shift())
  local stride = about(transition) + 1
  local claimed, entry, looked = {}, root .. 'c:' .. worker, 0
  local queue, member, name, slot -- of the entry that was chosen
  local ids, capacities, own, settings, skips, full, rates, left_queue = {}, {}, {}, {}, {}, 0, {}, {}

  -- A limit with the leases of a slot taken off, live and draining.
  local function left(limit, slot)
    if not limit then return math.huge end
    return limit - tonumber(redis.call('HGET', root .. 'n', slot) or 0) - (indexes.counts.n[slot] or 0)
  end

  -- How many jobs of a limit key its gate and its rate let start now; see `Limit` of `milepost.core.limits`.
  local function admitted(key)
    local spacing, tolerance, gate, opens = string.match(settings[key], ':(%d*):(%d*):(%d*):(%d*)$')
    if not spacing or spacing .. gate == '' then return math.huge end
    local rate = {spacing = tonumber(spacing), tolerance = tonumber(tolerance), gate = tonumber(gate) or 0, opens = tonumber(opens) or 0}
    if not rate.spacing then rate.opens = 0 elseif rate.opens > this.clock + rate.spacing then rate.opens = this.clock end
    rates[key] = rate
    if math.max(rate.gate, rate.opens) > this.clock then return 0 end
    if not rate.spacing then return math.huge end
    return math.floor((this.clock - math.max(rate.opens, this.clock - rate.tolerance)) / rate.spacing) + 1
  end

  -- How many more leases a slot may have: a limit key, or a partition of it. The setting of the store overrides that of the worker.
  local function capacity(key, partition)
    if not capacities[key] then
      local setting = settings[key] or redis.call('HGET', root .. 'limits', key) or ''
      settings[key] = setting
      capacities[key] = math.min(left(tonumber(string.match(setting, '^%-?%d+')) or own[key], key), admitted(key))
    end
    if not partition then return capacities[key] end
    if not capacities[partition] then
      capacities[partition] = left(tonumber(string.match(settings[key], '^[^:]*:[^:]*:(%d+)')), partition)
    end
    return math.min(capacities[key], capacities[partition])
  end

  -- Remove the entries of jobs that `claim.take` was called for.
  local function remove_taken()
    for name, members in pairs(left_queue) do redis.call('ZREM', root .. 'q:' .. name, unpack(members)) end
    left_queue = {}
  end

  -- The first entry of a queue that was not tried yet.
  local function head(queue)
    if queue.at > #queue.heads then
      if queue.last or capacity(queue.type) <= 0 then return end
      remove_taken()
      local most = math.min(starts + 1, 200)
      queue.heads = redis.call('ZRANGE', root .. 'q:' .. queue.name, queue.passed, queue.passed + most - 1, 'WITHSCORES')
      queue.at, queue.last = 1, #queue.heads < 2 * most
      if #queue.heads == 0 then return end
    end
    return queue.heads[queue.at], tonumber(queue.heads[queue.at + 1])
  end

  -- The first subqueue in a ring that has capacity, where it is in the order, its first entry that was not refused, and the rank of that.
  local function first_in_ring(ring)
    while capacity(ring.key) > 0 and full < 64 do
      local found = redis.call('ZRANGE', ring.index, ring.skipped, ring.skipped, 'WITHSCORES')
      local name = found[1]
      if not name then return end
      local slot = string.sub(name, ring.prefix)
      if slot ~= ring.key and capacity(ring.key, slot) <= 0 then
        indexes.set_full(name)
        full = full + 1
      else
        local passed = skips[name] or 0
        local entry = redis.call('ZRANGE', root .. 'q:' .. name, passed, passed, 'WITHSCORES')
        if entry[1] then return name, tonumber(found[2]), entry[1], tonumber(entry[2]) end
        ring.skipped = ring.skipped + 1
      end
    end
  end

  -- The entry of a queue that is next, its rank, and its subqueue with the slot of that.
  local function next_entry(queue)
    if queue.paused then return end
    local member, rank = nil, nil
    if capacity(queue.type) > 0 then member, rank = head(queue) end
    if not queue.rings then return member, rank end
    local best, at, slot = queue.name, rank and rank * 1e13 + queue.turn, nil
    for i = 1, #queue.rings do
      local ring = queue.rings[i]
      local name, place, entry, its_rank = first_in_ring(ring)
      if name and (not at or place < at or (place == at and name < best)) then
        best, at, member, rank, slot = name, place, entry, its_rank, string.sub(name, ring.prefix)
      end
    end
    return member, rank, best, slot
  end

  local function first_of_all()
    local best, best_member, best_rank, best_name, best_slot
    for i = 1, #queues do
      local member, rank, name, slot = next_entry(queues[i])
      if member and (not best or rank < best_rank or (rank == best_rank and member < best_member)) then
        best, best_member, best_rank, best_name, best_slot = queues[i], member, rank, name, slot
      end
    end
    return best, best_member, best_name, best_slot
  end

  local function named_job()
    if looked > 0 then return end
    looked = 1
    local got = redis.pcall('HMGET', root .. 'j:' .. wanted, 'q', 'c')
    for i = 1, #queues do
      local queue = queues[i]
      local name, slot = string.match(not got.err and got[2] and got[1] or '', '^([^\31]*)\31?(.*)$')
      if name == queue.name and not queue.paused then
        if slot == '' then slot = nil end
        local key = slot and string.match(slot, '^[^\31]*') or queue.type
        local member = indexes.member(wanted, got[2])
        if capacity(key, slot ~= key and slot or nil) > 0 and redis.call('ZSCORE', root .. 'q:' .. got[1], member) then
          return queue, member, got[1], slot
        end
      end
    end
  end

  indexes = indexes or open_indexes()
  claim = {}

  -- The id to start next, with its transition, the operation id and the position of its values; nothing at the end.
  function claim.next()
    if #ids == starts or looked >= starts + 64 then return end
    if wanted ~= '' then
      queue, member, name, slot = named_job()
    else
      queue, member, name, slot = first_of_all()
      if queue and not slot then queue.at = queue.at + 2 end
      looked = looked + 1
    end
    if not queue then return end
    name = name or queue.name
    claim.queue = not slot and name
    local first = arg + #ids * stride
    return string.sub(member, 18), transition, ARGV[first], first + 1
  end

  -- Remove the entry of the job in its queue `claim.queue`; later, together with those of other jobs.
  function claim.take()
    local members = left_queue[claim.queue]
    if not members then
      members = {}
      left_queue[claim.queue] = members
    end
    members[#members + 1] = member
  end

  -- The result of the start; a job past its start deadline leaves the queue.
  function claim.started(id, branch, text)
    if branch >= 0 then
      local key = slot and string.match(slot, '^[^\31]*') or queue.type
      capacities[key] = capacities[key] - 1
      local rate = rates[key]
      if rate and rate.spacing then
        rate.opens, rate.moved = math.max(rate.opens, this.clock - rate.tolerance) + rate.spacing, true
      end
      if slot and slot ~= key then capacities[slot] = capacities[slot] - 1 end
      if slot or queue.rings then
        local turn = redis.call('INCR', root .. 'turn')
        redis.call('ZADD', root .. 'turns', turn, name)
        redis.call('ZREMRANGEBYRANK', root .. 'turns', 0, -10001)
        if slot then indexes.enlist(name) else queue.turn = turn end
      end
      ids[#ids + 1] = id
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = text
      return
    end
    local after = redis.pcall('HGET', root .. 'j:' .. id, 'N')
    if not text or type(after) == 'table' or (after and tonumber(after) <= this.clock) then
      redis.call('ZREM', root .. 'q:' .. name, member)
      if slot then indexes.enlist(name) end
    elseif slot then
      skips[name] = (skips[name] or 0) + 1
    else
      queue.passed = queue.passed + 1
    end
  end

  -- The reply. It is stored in case it is lost, and its number to recognise late duplicates of older claims.
  function claim.close()
    local next_due = false
    remove_taken()
    for key, rate in pairs(rates) do
      if rate.moved then
        redis.call('HSET', root .. 'limits', key, (string.gsub(settings[key], '%d*$', string.format('%d', rate.opens), 1)))
      end
      local opens = math.max(rate.gate, rate.opens)
      if opens > this.clock and opens < (next_due or math.huge) then next_due = opens end
    end
    if not claim.recalled then
      for i = 1, wanted == '' and #queues or 0 do
        local queue = queues[i]
        -- Wake-up tokens for waiting workers: none if nothing can be claimed, one if something is left. If a rate is spent,
        -- one more worker learns when it lets jobs start, in case this one is busy then.
        indexes.ready[queue.name] = nil
        if next_entry(queue) or full == 64 or (next_due and #ids > 0) then
          indexes.announce_one(queue.name)
        else
          redis.call('DEL', root .. 'ready:' .. queue.name)
        end
      end
      local parts = {number .. ':' .. op}
      for i = 1, #ids do parts[i + 1] = string.format('%03d', #ids[i]) .. ids[i] end
      redis.call('SET', entry, table.concat(parts), 'PX', 3600000)
    end
    if next_due then next_due = string.format('%d', next_due) end
    for i = 1, #names do
      local due = redis.call('ZRANGE', root .. 'd:' .. names[i], 0, 0, 'WITHSCORES')[2]
      if due and (not next_due or tonumber(due) < tonumber(next_due)) then next_due = due end
    end
    return claimed, next_due
  end

  local before = redis.call('GET', entry) or '0:'
  local last = string.match(before, '^%d+')
  if tonumber(number) < tonumber(last) then
    claim.recalled, starts = true, 0
    return
  end
  local first = #last + 2
  if string.sub(before, first, first + #op - 1) == op then
    claim.recalled, starts = true, 0
    local place = first + #op
    while place <= #before do
      local length = tonumber(string.sub(before, place, place + 2))
      local id = string.sub(before, place + 3, place + 2 + length)
      local record = look(id)
      if record then
        claimed[#claimed + 1] = id
        claimed[#claimed + 1] = record
      end
      place = place + 3 + length
    end
    return
  end
  for i = 1, #names do indexes.promote(names[i]) end
  -- Partitions in which the writes of this request ended a run may no longer be full.
  for slot, by in pairs(indexes.counts.n) do
    if by < 0 and string.find(slot, '\31', 1, true) then indexes.slot_freed(slot) end
  end
  local types = {}
  for i = 1, #queues do types[i] = queues[i].type end
  local found = #types > 0 and redis.call('HMGET', root .. 'limits', unpack(types)) or {}
  for i = 1, #queues do
    local queue = queues[i]
    settings[queue.type], own[queue.type] = found[i] or '', queue.limit
    queue.paused = string.match(settings[queue.type], ':(%d)') == '1'
  end
  -- The rings of queues that have subqueues, one for each limit key.
  for _, name in ipairs(redis.call('SMEMBERS', root .. 'rings')) do
    for i = 1, #queues do
      local queue = queues[i]
      if queue.name == name then
        queue.rings, queue.turn = {}, tonumber(redis.call('ZSCORE', root .. 'turns', name) or 0)
        for j, key in ipairs(redis.call('SMEMBERS', root .. 'rings:' .. name)) do
          queue.rings[j] = {key = key, index = root .. 'ring:' .. name .. '\31' .. key, prefix = #name + 2, skipped = 0}
        end
      end
    end
  end
end

-- name: set_limit
-- Limit a key or pause the type of that name, or remove the setting; wake waiting workers.
-- ARGV[2]   the key
-- ARGV[3]   the first parts of its setting, see `change_limit` of indexes.lua, with `=` for a value to keep
-- Reply     nothing
local indexes, given = open_indexes(), {}
for value in string.gmatch(ARGV[3] .. ':', '(.-):') do given[#given + 1] = value end
indexes.change_limit(ARGV[2], given)
indexes.announce_one(ARGV[2])
indexes.slot_freed(ARGV[2])
for _, slot in ipairs(redis.call('SMEMBERS', root .. 'fulls')) do indexes.slot_freed(slot) end
indexes.flush()
return false

-- name: close_gate
-- Close or open the gate of a limit key; wake waiting workers.
-- ARGV[2]   the key
-- ARGV[3]   for how many microseconds, 0 to open it
-- Reply     nothing
local indexes = open_indexes()
indexes.close_gate(ARGV[2], ARGV[3] ~= '0' and this.clock + tonumber(ARGV[3]) or 0)
indexes.announce_one(ARGV[2])
indexes.slot_freed(ARGV[2])
indexes.flush()
return false

-- name: wake
-- Wake a worker by name.
-- ARGV[2]   the worker
-- Reply     nothing
local indexes = open_indexes()
indexes.woken[ARGV[2]] = true
indexes.flush()
return false
