-- Claims of workers, and what wakes a waiting worker.

-- name: claim
-- Part of `apply`: choose the jobs that a worker's claim starts. `open_claim` is called once, after the writes. It reads
-- the claim from ARGV and sets `claim`, whose functions take turns with the changes that `apply` applies.
local function open_claim()
  local worker, op, number, wanted = shift(), shift(), shift(), shift()
  local queues, names = {}, {}
  for i = 1, tonumber(shift()) do
    names[i] = shift()
    -- A limit is that of the type; a name may be `type@queue`.
    queues[i] = {name = names[i], type = string.match(names[i], '^[^@]*'), limit = tonumber(shift())}
    queues[i].at, queues[i].passed, queues[i].heads, queues[i].last = 1, 0, {}, false
  end
  local transition, starts = tonumber(shift()), tonumber(shift())
  local stride = about(transition) + 1
  local claimed, entry, looked, chosen = {}, root .. 'c:' .. worker, 0, nil
  local ids = {}

  -- How many more leases the slot of a queue may have; the setting of the store overrides that of the worker.
  local function capacity(queue, setting)
    local limit, paused = string.match(setting or '', '^(%-?%d*):(%d)$')
    if paused == '1' then return 0 end
    limit = tonumber(limit) or queue.limit
    if not limit then return math.huge end
    local held = tonumber(redis.call('HGET', root .. 'n', queue.type) or 0)
    return limit - held - (indexes.counts.n[queue.type] or 0)
  end

  -- The first entry of a queue that was not tried yet.
  local function head(queue)
    if queue.at > #queue.heads then
      if queue.last or queue.capacity <= 0 then return end
      local most = math.min(starts + 1, 200)
      queue.heads = redis.call('ZRANGE', root .. 'q:' .. queue.name, queue.passed, queue.passed + most - 1, 'WITHSCORES')
      queue.at, queue.last = 1, #queue.heads < 2 * most
      if #queue.heads == 0 then return end
    end
    return queue.heads[queue.at], tonumber(queue.heads[queue.at + 1])
  end

  local function first_of_all()
    local best, best_member, best_score
    for i = 1, #queues do
      local queue = queues[i]
      if queue.capacity > 0 then
        local member, score = head(queue)
        if member and (not best or score < best_score or (score == best_score and member < best_member)) then
          best, best_member, best_score = queue, member, score
        end
      end
    end
    return best, best_member
  end

  local function named_job()
    if looked > 0 then return end
    looked = 1
    local got = redis.pcall('HMGET', root .. 'j:' .. wanted, 'q', 'c')
    for i = 1, #queues do
      local queue = queues[i]
      if not got.err and got[2] and got[1] == queue.name and queue.capacity > 0 then
        local member = indexes.member(wanted, got[2])
        if redis.call('ZSCORE', root .. 'q:' .. queue.name, member) then return queue, member end
      end
    end
  end

  indexes = indexes or open_indexes()
  claim = {}

  -- The id to start next, with its transition, the operation id and the position of its values; nothing at the end.
  function claim.next()
    if #ids == starts or looked >= starts + 64 then return end
    local queue, member
    if wanted ~= '' then
      queue, member = named_job()
    else
      queue, member = first_of_all()
      if queue then queue.at = queue.at + 2 end
      looked = looked + 1
    end
    if not queue then return end
    chosen = {queue = queue, member = member}
    local first = arg + #ids * stride
    return string.sub(member, 18), transition, ARGV[first], first + 1
  end

  -- The result of the start; a job past its start deadline leaves the queue.
  function claim.started(id, branch, text)
    local queue = chosen.queue
    if branch >= 0 then
      for i = 1, #queues do
        if queues[i].type == queue.type then queues[i].capacity = queues[i].capacity - 1 end
      end
      ids[#ids + 1] = id
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = text
      return
    end
    local after = redis.pcall('HGET', root .. 'j:' .. id, 'N')
    if not text or type(after) == 'table' or (after and tonumber(after) <= this.clock) then
      redis.call('ZREM', root .. 'q:' .. queue.name, chosen.member)
    else
      queue.passed = queue.passed + 1
    end
  end

  -- The reply. It is stored in case it is lost, and its number to recognise late duplicates of older claims.
  function claim.close()
    if not claim.recalled then
      for i = 1, wanted == '' and #queues or 0 do
        local queue = queues[i]
        -- Wake-up tokens for waiting workers: none if nothing can be claimed, one if something is left.
        indexes.ready[queue.name] = nil
        if queue.capacity > 0 and head(queue) then
          indexes.announce_one(queue.name)
        else
          redis.call('DEL', root .. 'ready:' .. queue.name)
        end
      end
      local parts = {number .. ':' .. op}
      for i = 1, #ids do parts[i + 1] = string.format('%03d', #ids[i]) .. ids[i] end
      redis.call('SET', entry, table.concat(parts), 'PX', 3600000)
    end
    local next_due = false
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
  local types = {}
  for i = 1, #queues do types[i] = queues[i].type end
  local settings = #types > 0 and redis.call('HMGET', root .. 'limits', unpack(types)) or {}
  for i = 1, #queues do queues[i].capacity = capacity(queues[i], settings[i]) end
end

-- name: set_limit
-- Limit or pause a queue, or remove its setting; wake one waiting worker.
-- ARGV[2]   the queue
-- ARGV[3]   its setting `<limit or empty>:<1 paused, 0 not>`, or empty for none
-- Reply     nothing
local indexes = open_indexes()
if ARGV[3] == '' then
  redis.call('HDEL', root .. 'limits', ARGV[2])
else
  redis.call('HSET', root .. 'limits', ARGV[2], ARGV[3])
end
indexes.announce_one(ARGV[2])
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
