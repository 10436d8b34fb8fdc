-- The index entries of records.

-- name: indexes
-- Prelude of every script that writes records: their indexes, counts, draining leases, and wake-up tokens.
-- `open_indexes()` creates the functions. Moves are collected and written by `flush`, once per index for any number of
-- records. Claim queues, schedules and unique keys are written immediately, because a claim or a later write in the same
-- script reads them.
local function open_indexes()
  local X = {touches = {}, moves = {}, listed = {}, counts = {n = {}, w = {}}, ended = {}, ready = {}, woken = {}}

  -- Add a member to an index, or remove it with the score false; the last call counts.
  local function move(index, member, score)
    local members = X.moves[index]
    if not members then
      members = {}
      X.moves[index] = members
    end
    members[member] = score
  end

  -- Records without a slot, or without a worker, are not counted.
  local function count(hash, name, by)
    if not name or name == '' then return end
    local names = X.counts[hash]
    names[name] = (names[name] or 0) + by
    local key = hash == 'n' and string.match(name, '^([^\31]*)\31')
    if key then names[key] = (names[key] or 0) + by end
  end

  -- A value that is not empty, or false.
  local function some(value)
    return value ~= nil and value ~= '' and value or false
  end

  -- The previous value of a field: `old` has overwritten values, false where there was none.
  local function was(old, fields, name)
    local value = old[name]
    if value == nil then value = fields[name] end
    return value ~= '' and value or false
  end

  function X.member(id, created)
    return (#created == 16 and created or string.format('%016.0f', created)) .. ':' .. id
  end

  -- The queue of the name under which a record is claimed, and for a subqueue its slot; see `milepost.core.limits`.
  local function queue_of(name)
    local at = string.find(name, '\31', 1, true)
    if not at then return name end
    return string.sub(name, 1, at - 1), string.sub(name, at + 1)
  end

  -- Place a subqueue in the ring of its queue and limit key, by rank and turn, unless it is empty or its partition is full.
  function X.enlist(name)
    local queue, slot = queue_of(name)
    local key = string.match(slot, '^[^\31]*')
    local ring = root .. 'ring:' .. queue .. '\31' .. key
    local rank = redis.call('ZRANGE', root .. 'q:' .. name, 0, 0, 'WITHSCORES')[2]
    if rank and redis.call('SISMEMBER', root .. 'full:' .. slot, name) == 0 then
      local turn = tonumber(redis.call('ZSCORE', root .. 'turns', name) or 0)
      redis.call('ZADD', ring, string.format('%.0f', rank * 1e13 + turn), name)
      redis.call('SADD', root .. 'rings', queue)
      redis.call('SADD', root .. 'rings:' .. queue, key)
      redis.call('SADD', root .. 'queues:' .. key, queue)
    elseif redis.call('ZREM', ring, name) == 1 and redis.call('EXISTS', ring) == 0 then
      redis.call('SREM', root .. 'queues:' .. key, queue)
      redis.call('SREM', root .. 'rings:' .. queue, key)
      if redis.call('EXISTS', root .. 'rings:' .. queue) == 0 then redis.call('SREM', root .. 'rings', queue) end
    end
  end

  -- Take a subqueue whose partition is full out of its ring, until `X.slot_freed`.
  function X.set_full(name)
    local _, slot = queue_of(name)
    redis.call('SADD', root .. 'fulls', slot)
    redis.call('SADD', root .. 'full:' .. slot, name)
    X.enlist(name)
  end

  -- A slot may have capacity: wake a worker of each queue that has jobs for it.
  function X.slot_freed(slot)
    if redis.call('EXISTS', root .. 'q:' .. slot) == 1 then X.announce_one(slot) end
    if string.find(slot, '\31', 1, true) then
      local names = redis.call('SMEMBERS', root .. 'full:' .. slot)
      redis.call('DEL', root .. 'full:' .. slot)
      redis.call('SREM', root .. 'fulls', slot)
      for i = 1, #names do
        X.enlist(names[i])
        X.announce_one((queue_of(names[i])))
      end
    else
      local queues = redis.call('SMEMBERS', root .. 'queues:' .. slot)
      for i = 1, #queues do X.announce_one(queues[i]) end
      local plain = redis.call('SMEMBERS', root .. 'plain:' .. slot)
      for i = 1, #plain do
        if redis.call('EXISTS', root .. 'q:' .. plain[i]) == 1 then
          X.announce_one(plain[i])
        else
          redis.call('SREM', root .. 'plain:' .. slot, plain[i])
        end
      end
    end
  end

  -- Change the setting of a limit key, and forget those that change nothing any more. Its parts, separated by colons, empty if
  -- unset: most leases, 1 paused or 0 not, per partition, rate, its spacing and tolerance, gate, and when the rate opens.
  function X.change_limit(key, given)
    local values, index = {}, root .. 'limits'
    for value in string.gmatch((redis.call('HGET', index, key) or ':0::::::') .. ':', '(.-):') do values[#values + 1] = value end
    for place, value in pairs(given) do
      if place == 4 and value ~= '=' and value ~= values[4] then values[8] = '' end
      if value ~= '=' then values[place] = value end
    end
    redis.call('HSET', index, key, table.concat(values, ':'))
    local all = redis.call('HGETALL', index)
    for i = 1, #all, 2 do
      local gate = string.match(all[i + 1], '^:0:::::(%d*):')
      if gate and (tonumber(gate) or 0) <= this.clock then redis.call('HDEL', index, all[i]) end
    end
  end

  -- Let no job of a limit key start until a time, or a later one that is set; 0 opens its gate.
  function X.close_gate(key, time)
    local before = tonumber(string.match(redis.call('HGET', root .. 'limits', key) or '', ':(%d*):%d*$')) or 0
    X.change_limit(key, {[7] = time > 0 and string.format('%d', math.max(before, time)) or ''})
  end

  -- Give the start at a time back to the rate of a limit key, as `after_return` of `milepost.core.rate`.
  function X.return_start(key, time)
    local setting = redis.call('HGET', root .. 'limits', key) or ''
    local spacing, tolerance, opens = string.match(setting, ':(%d+):(%d*):%d*:(%d+)$')
    if spacing and time <= this.clock and this.clock < time + spacing + tolerance then
      opens = string.format('%d', math.max(0, opens - spacing))
      redis.call('HSET', root .. 'limits', key, (string.gsub(setting, '%d*$', opens, 1)))
      X.slot_freed(key)
    end
  end

  -- Make a record with a queue claimable, scheduled or neither.
  function X.offer(id, fields)
    local queue, slot = queue_of(fields.q)
    local start = starts_at(fields.held, fields.wait_groups, fields.wake_at, fields.n)
    if not start or parked(id, fields.k) then return end
    if start > this.clock then
      redis.call('ZADD', root .. 'd:' .. queue, fields.wake_at or fields.n, id)
      redis.call('SADD', root .. 'scheduled', queue)
      -- A waiting worker learns from its next claim when the job is due.
      if redis.call('ZRANK', root .. 'd:' .. queue, id) ~= 0 then return end
    else
      redis.call('ZADD', root .. 'q:' .. fields.q, 0 - (tonumber(fields.y) or 0), X.member(id, fields.c))
      if slot then
        X.enlist(fields.q)
      else
        -- For `X.slot_freed`: the queues `type@queue` of a type.
        local job_type = string.match(queue, '^(.-)@')
        if job_type then redis.call('SADD', root .. 'plain:' .. job_type, queue) end
      end
    end
    X.ready[queue] = (X.ready[queue] or 0) + 1
  end

  -- Offer a record by its id if it has a queue: it is due, or no longer waits.
  function X.offer_again(id)
    local got = redis.pcall('HMGET', root .. 'j:' .. id, 'q', 'c', 'n', 'k', 'y', 'held', 'wait_groups', 'wake_at')
    if got.err or not some(got[1] or nil) or not got[2] then return end
    local fields = {q = got[1], c = got[2], n = got[3] or nil, k = got[4] or nil, y = got[5] or nil}
    fields.held, fields.wait_groups, fields.wake_at = got[6] or nil, got[7] or nil, got[8] or nil
    X.offer(id, fields)
  end

  -- Make scheduled records of a queue that are due claimable.
  function X.promote(queue)
    local index = root .. 'd:' .. queue
    local due = redis.call('ZRANGE', index, '-inf', this.now, 'BYSCORE', 'LIMIT', 0, 100)
    for i = 1, #due do
      redis.call('ZREM', index, due[i])
      X.offer_again(due[i])
    end
  end

  -- Move a record in the indexes that `touched` names by letters: l list, q queue, d deadline, L lease, a label,
  -- k unique key, e ended.
  function X.place(id, old, fields, touched)
    local touches = X.touches[touched]
    if not touches then
      touches = {}
      for letter in string.gmatch(touched, '.') do touches[letter] = true end
      X.touches[touched] = touches
    end
    if touches.l then
      local type0, status0 = was(old, fields, 't'), was(old, fields, 's')
      if status0 ~= some(fields.s) or type0 ~= some(fields.t) then
        if status0 then move('i:' .. (type0 or '') .. ':' .. status0, id, false) end
        if fields.s then
          local name = (fields.t or '') .. ':' .. fields.s
          X.listed[name] = true
          move('i:' .. name, id, fields.c)
        end
      end
    end
    if touches.q then
      local queue0 = was(old, fields, 'q')
      if queue0 then
        local name, slot = queue_of(queue0)
        if redis.call('ZREM', root .. 'q:' .. queue0, X.member(id, was(old, fields, 'c'))) == 0 then
          redis.call('ZREM', root .. 'd:' .. name, id)
        elseif slot then
          X.enlist(queue0)
        end
      end
      if some(fields.q) then X.offer(id, fields) end
    end
    if touches.g then
      local labels0, labels1 = was(old, fields, 'l') or '', fields.l or ''
      if string.find(labels0 .. labels1, ':', 1, true) then
        -- As `memberships` of `milepost.core.placement`.
        local ended0 = was(old, fields, 'z') and was(old, fields, 's') or ''
        local ended1 = some(fields.z) and fields.s or ''
        if was(old, fields, 'closed') then ended0 = 'closed' end
        if fields.closed then ended1 = 'closed' end
        groups().move(id, some(fields.child_key) or was(old, fields, 'child_key'), was(old, fields, 'c') and labels0 or '', ended0, labels1, ended1)
      end
    end
    if touches.h then
      local held0, held1 = was(old, fields, 'held'), some(fields.held)
      if held0 ~= held1 then
        if held0 then
          redis.call('ZREM', root .. 'h:' .. held0, id)
          if redis.call('HINCRBY', root .. 'held', held0, -1) <= 0 then redis.call('HDEL', root .. 'held', held0) end
        end
        if held1 then
          redis.call('ZADD', root .. 'h:' .. held1, fields.c, id)
          redis.call('HINCRBY', root .. 'held', held1, 1)
          this.held = true
        end
      end
    end
    if touches.d then
      if fields.N and not some(fields.b) and not some(fields.z) then
        move('deadline', id, fields.N)
      elseif was(old, fields, 'N') then
        move('deadline', id, false)
      end
    end
    if touches.L then
      local lease0, lease1 = was(old, fields, 'L'), some(fields.L)
      if lease0 then
        if not lease1 then move('lease', id, false) end
        count('n', was(old, fields, 'S'), -1)
        count('w', was(old, fields, 'w'), -1)
      end
      if lease1 then
        move('lease', id, lease1)
        count('n', fields.S, 1)
        count('w', fields.w, 1)
      end
    end
    if touches.a then
      for pair in string.gmatch(was(old, fields, 'l') or '', '[^\31]+') do move('l:' .. pair, id, false) end
      for pair in string.gmatch(fields.l or '', '[^\31]+') do move('l:' .. pair, id, fields.c) end
    end
    if touches.k then
      local key0, key1 = was(old, fields, 'k'), some(fields.k)
      if key0 and key0 ~= key1 then redis.call('ZREM', root .. 'k:' .. key0, id) end
      if key1 and key0 ~= key1 then
        -- Ordered by arrival, because the clock, and so `created`, may have stepped back.
        local newest = tonumber(redis.call('ZRANGE', root .. 'k:' .. key1, -1, -1, 'WITHSCORES')[2])
        local score = math.max((newest or 0) + 1, tonumber(fields.c))
        redis.call('ZADD', root .. 'k:' .. key1, string.format('%.0f', score), id)
      end
    end
    if touches.e then
      local ended0, ended1 = was(old, fields, 'z'), some(fields.z)
      if ended0 and ended0 ~= ended1 then
        redis.call('HINCRBY', root .. 'zs', id, 1)
        redis.call('HDEL', root .. 'zk', id)
      end
      if ended1 and ended0 ~= ended1 then redis.call('RPUSH', root .. 'z', id) end
      if ended1 and not ended0 then -- as `counted_end` of `milepost.core.rollups`
        local ended, started, created = tonumber(ended1) or 0, tonumber(fields.b) or 0, tonumber(fields.c) or 0
        local series = math.floor(ended / 60000000) .. '\31' .. (fields.t or '') .. '\31' .. (fields.queue ~= fields.t and fields.queue or '') .. '\31'
        local function ends(metric, from, to)
          if from then metric = metric .. math.floor(math.log(math.max(to - from, 1)) * 5.7707801635558535) end
          metric = series .. metric
          X.ended[metric] = (X.ended[metric] or 0) + 1
        end
        ends(fields.s)
        if started > 0 then
          ends(fields.s .. '.r', started, ended)
          local due, first = tonumber(was(old, fields, 'n') or fields.n or 0) or 0, started
          local has_failed = (tonumber(fields.a) or 0) > 1 or fields.x or was(old, fields, 'suspect')
          if has_failed and fields.V then first = tonumber(string.match(fields.V, '^%d+')) or 0 end
          ends('w', math.max(created, due), due <= first and first or started)
        end
      end
    end
  end

  -- Remove a record from every index, with its events.
  local has_results

  -- Delete the kept results of a record from the key-value store, where keys have the id in plain form.
  local function forget_results(id)
    if has_results == nil then
      has_results = #redis.call('ZRANGE', root .. 'h', '[results/', '(results0', 'BYLEX', 'LIMIT', 0, 1) > 0
    end
    if not has_results then return end
    id = groups().plain(id)
    for _, key in ipairs(redis.call('ZRANGE', root .. 'h', '[results/' .. id .. '/', '(results/' .. id .. '0', 'BYLEX')) do
      redis.call('DEL', root .. 'h:' .. key)
      redis.call('ZREM', root .. 'h', key)
      redis.call('ZREM', root .. 'hx', key)
    end
  end

  function X.forget(id, fields, touched)
    X.place(id, fields, {}, touched)
    if some(fields.stalled) then redis.call('ZREM', root .. 'stalled', id) end
    if fields.stale then redis.call('ZREM', root .. 'stale', id) end
    redis.call('DEL', root .. 'j:' .. id, root .. 'e:' .. id, root .. 'v:' .. id, root .. 'u:tree:' .. groups().plain(id))
    groups().keep_end(id, fields)
    forget_results(id)
  end

  -- End the draining lease of an id, and return its unique key.
  function X.drop_stop(id)
    local text = stops() and redis.call('HGET', root .. 's', id)
    if not text then return end
    local key, slot, names = string.match(text, '^%Z*%z(%Z*)%z(%Z*)%z%Z*%z(%Z*)')
    redis.call('HDEL', root .. 's', id)
    redis.call('ZREM', root .. 'sx', id)
    if key ~= '' and redis.call('HINCRBY', root .. 'sk', key, -1) <= 0 then redis.call('HDEL', root .. 'sk', key) end
    count('n', slot, -1)
    if names ~= '' then groups().drain(names, -1) end
    this.stops = nil
    return key, names
  end

  function X.add_stop(id, token, expires, key, slot, worker, labels, child_key)
    X.drop_stop(id)
    local names = string.find(labels, ':', 1, true) and table.concat(groups().of(labels, child_key), '\31') or ''
    redis.call('HSET', root .. 's', id, token .. '\0' .. key .. '\0' .. slot .. '\0' .. worker .. '\0' .. names)
    if names ~= '' then groups().drain(names, 1) end
    redis.call('ZADD', root .. 'sx', expires, id)
    if key ~= '' then redis.call('HINCRBY', root .. 'sk', key, 1) end
    count('n', slot, 1)
    if worker ~= '' then X.woken[worker] = true end
    this.stops = true
  end

  function X.announce_one(queue)
    if redis.call('LLEN', root .. 'ready:' .. queue) == 0 then announce(queue, 1) end
  end

  -- Write the collected moves, counts and tokens.
  function X.flush()
    for index, members in pairs(X.moves) do
      local out, into, n, m = {}, {}, 0, 0
      for member, score in pairs(members) do
        if score then
          into[m + 1], into[m + 2] = score, member
          m = m + 2
        else
          n = n + 1
          out[n] = member
        end
        if n == 2000 or m == 2000 then
          if n > 0 then redis.call('ZREM', root .. index, unpack(out)) end
          if m > 0 then redis.call('ZADD', root .. index, unpack(into)) end
          out, into, n, m = {}, {}, 0, 0
        end
      end
      if n > 0 then redis.call('ZREM', root .. index, unpack(out)) end
      if m > 0 then redis.call('ZADD', root .. index, unpack(into)) end
      if string.sub(index, 1, 9) == 'l::after=' and redis.call('EXISTS', root .. index) == 0 then
        groups().forget_ends(string.sub(index, 10))
      end
    end
    for name in pairs(X.listed) do redis.call('SADD', root .. 't', name) end
    for hash, names in pairs(X.counts) do
      for name, by in pairs(names) do
        if by ~= 0 then
          if redis.call('HINCRBY', root .. hash, name, by) <= 0 then redis.call('HDEL', root .. hash, name) end
          if hash == 'n' and by < 0 then X.slot_freed(name) end
        end
      end
    end
    for metric, by in pairs(X.ended) do redis.call('HINCRBY', root .. 'ro', metric, by) end
    for queue, many in pairs(X.ready) do announce(queue, many) end
    for worker in pairs(X.woken) do
      local list = root .. 'wake:' .. worker
      redis.call('LPUSH', list, '1')
      redis.call('LTRIM', list, 0, 7)
      redis.call('EXPIRE', list, 60)
    end
  end

  return X
end
