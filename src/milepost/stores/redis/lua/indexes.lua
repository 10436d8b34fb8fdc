-- The index entries of records.

-- name: indexes
-- Prelude of every script that writes records: their indexes, counts, draining leases, and wake-up tokens.
-- `open_indexes()` creates the functions. Moves are collected and written by `flush`, once per index for any number of
-- records. Claim queues, schedules and unique keys are written immediately, because a claim or a later write in the same
-- script reads them.
local function open_indexes()
  local X = {touches = {}, moves = {}, listed = {}, steps = {}, counts = {n = {}, w = {}}, ends = {}, ended = {}, ready = {}, woken = {}}

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
    local at = hash == 'n' and string.find(name, '\31', 1, true)
    if at then
      local key = string.sub(name, 1, at - 1)
      names[key] = (names[key] or 0) + by
    end
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

  --@subqueues
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

  -- Move a record from the list of a type and status, if it was in one, to another one.
  function X.list(id, type0, status0, type1, status1, created)
    if status0 then move('i:' .. (type0 or '') .. ':' .. status0, id, false) end
    if status1 then
      local name = (type1 or '') .. ':' .. status1
      X.listed[name] = true
      move('i:' .. name, id, created)
    end
  end

  -- The same for an equal type, with the members of both lists kept for the next record.
  function X.step(id, job_type, status0, status1, created)
    local step = X.steps[status1]
    if not step or step.type ~= job_type or step.status0 ~= status0 then
      X.list(id, job_type, status0, job_type, status1, created)
      local name = 'i:' .. (job_type or '') .. ':'
      step = {type = job_type, status0 = status0, from = X.moves[name .. status0], to = X.moves[name .. status1]}
      X.steps[status1] = step
    end
    step.from[id], step.to[id] = false, created
  end

  -- Replace the lease of a record, if it had one, by another one or none.
  function X.lease(id, lease0, slot0, worker0, lease1, slot1, worker1)
    lease0, lease1 = some(lease0), some(lease1)
    if lease0 then
      if not lease1 then move('lease', id, false) end
      count('n', slot0, -1)
      count('w', worker0, -1)
    end
    if lease1 then
      move('lease', id, lease1)
      count('n', slot1, 1)
      count('w', worker1, 1)
    end
  end

  -- Count the end of a record, as `counted_end` of `milepost.core.rollups`.
  function X.count_end(fields, ended)
    local started, created = tonumber(fields.b) or 0, tonumber(fields.c) or 0
    local minute, job_type, queue = math.floor(ended / 60000000), fields.t or '', fields.queue ~= fields.t and fields.queue or ''
    local page = X.ended[#X.ended]
    if not page or page.minute ~= minute or page.type ~= job_type or page.queue ~= queue then
      page = {minute = minute, type = job_type, queue = queue, counts = {}}
      X.ended[#X.ended + 1] = page
    end
    local function add(metric, bucket)
      local counts = page.counts[metric] or {}
      page.counts[metric] = counts
      counts[bucket] = (counts[bucket] or 0) + 1
    end
    add(fields.s, '')
    if started > 0 then
      add(fields.s .. '.r', math.floor(math.log(math.max(ended - started, 1)) * 5.7707801635558535))
      local ready = math.max(created, tonumber(fields.n or 0) or 0)
      local has_failed, wait, first = (tonumber(fields.a) or 0) > 1 or fields.x, started - ready, nil
      for run in string.gmatch(fields.V or '', '[^\30]+') do
        local begun, over = string.match(run, '^(%d*)\31(%d*)')
        begun, over = tonumber(begun or 0) or 0, tonumber(over or 0) or 0
        if begun >= ready then
          first = first or begun
          wait = wait - (over - begun)
        end
      end
      if first and has_failed then wait = first - ready end
      add('w', math.floor(math.log(math.max(wait, 1)) * 5.7707801635558535))
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
      if status0 ~= some(fields.s) or type0 ~= some(fields.t) then X.list(id, type0, status0, fields.t, fields.s, fields.c) end
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
      X.lease(id, was(old, fields, 'L'), was(old, fields, 'S'), was(old, fields, 'w'), fields.L, fields.S, fields.w)
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
      if ended1 and ended0 ~= ended1 then X.ends[#X.ends + 1] = id end
      if ended1 and not ended0 then X.count_end(fields, tonumber(ended1) or 0) end
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
    for from = 1, #X.ends, 4000 do redis.call('RPUSH', root .. 'z', unpack(X.ends, from, math.min(from + 3999, #X.ends))) end
    for i = 1, #X.ended do
      local page = X.ended[i]
      local series = page.minute .. '\31' .. page.type .. '\31' .. page.queue .. '\31'
      for metric, counts in pairs(page.counts) do
        for bucket, by in pairs(counts) do redis.call('HINCRBY', root .. 'ro', series .. metric .. bucket, by) end
      end
    end
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
