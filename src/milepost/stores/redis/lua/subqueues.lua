-- Subqueues of claim queues, and the settings of limit keys.

-- name: subqueues
-- Part of `indexes`, within `open_indexes`.
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

  -- Give the start at a time back to the rate of a limit key, as `after_return` of `milepost.core.limits`.
  function X.return_start(key, time)
    local setting = redis.call('HGET', root .. 'limits', key) or ''
    local spacing, tolerance, opens = string.match(setting, ':(%d+):(%d*):%d*:(%d+)$')
    if spacing and time <= this.clock and this.clock < time + spacing + tolerance then
      opens = string.format('%d', math.max(0, opens - spacing))
      redis.call('HSET', root .. 'limits', key, (string.gsub(setting, '%d*$', opens, 1)))
      X.slot_freed(key)
    end
  end
