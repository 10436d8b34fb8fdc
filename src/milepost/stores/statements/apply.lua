-- Apply changes, in order, and then let a worker claim: one atomic step for the lot.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen
--          the number of shapes, and each as JSON
--          the number of writes, and for each: id, number of its shape, operation id, whether to answer (1 or 0),
--          unique key (empty: none), its values
--          when there is a claim: worker, operation id, job id (empty: any), the number of queues and for each its
--          name and limit (empty: none); the number of its shape, the number of starts and for each: operation id,
--          its values
-- Reply    the time; for each write the number of its case (-1: refused), or an array of that number, the record,
--          1 when repeated, the holder of the key; ids and records of the claimed; the next due time
-- Refusal  a script built for growth has no allow-oom flag: Redis answers OOM and nothing is written
local arg = 2
local function shift()
  arg = arg + 1
  return ARGV[arg - 1]
end

local shapes = {}
for i = 1, tonumber(shift()) do shapes[i] = cjson.decode(shift()) end

local outcomes = {}
for i = 1, tonumber(shift()) do
  if i > 1 then
    clock = clock + 1
    now = format('%.0f', clock)
  end
  local id, shape = ARGV[arg], shapes[tonumber(ARGV[arg + 1])]
  local case, text, repeated, holder =
    change(id, shape, ARGV[arg + 2], some(ARGV[arg + 4]), arg + 5, ARGV[arg + 3] == '1')
  arg = arg + 5 + shape.v
  outcomes[i] = (text or case < 0 or repeated) and {case, text or false, repeated and 1 or 0, holder or false} or case
end
if not ARGV[arg] then
  save_fence()
  flush()
  return {now, outcomes}
end

local worker, op, wanted = shift(), shift(), shift()
local queues, names = {}, {}
for i = 1, tonumber(shift()) do
  names[i] = shift()
  queues[i] = {name = names[i], limit = tonumber(shift()), at = 1, passed = 0, heads = {}, last = false}
end
local shape, starts = shapes[tonumber(shift())], tonumber(shift())
local claimed, entry = {}, root .. 'c:' .. worker

local function remember(ids)
  for i = 1, #ids do ids[i] = format('%03d', #ids[i]) .. ids[i] end
  call('SET', entry, op .. concat(ids), 'PX', 60000)
end

local function recall(text)
  local place_of = #op + 1
  while place_of <= #text do
    local length = tonumber(sub(text, place_of, place_of + 2))
    local id = sub(text, place_of + 3, place_of + 2 + length)
    local record = look(id)
    if record then
      claimed[#claimed + 1] = id
      claimed[#claimed + 1] = record
    end
    place_of = place_of + 3 + length
  end
end

-- How many more leases the slot of a queue may have: the setting comes before the wish of the worker.
local function room(queue, setting)
  local limit, paused = match(setting or '', '^(%d*):(%d)$')
  if paused == '1' then return 0 end
  limit = tonumber(limit) or queue.limit
  return limit and limit - held(queue.name) or math.huge
end

-- The foremost entry of a queue that was not looked at yet.
local function head(queue)
  if queue.at > #queue.heads then
    if queue.last or queue.room <= 0 then return end
    local most = math.min(starts + 1, 200)
    queue.heads = call('ZRANGE', root .. 'q:' .. queue.name, queue.passed, queue.passed + most - 1, 'WITHSCORES')
    queue.at, queue.last = 1, #queue.heads < 2 * most
    if #queue.heads == 0 then return end
  end
  return queue.heads[queue.at], tonumber(queue.heads[queue.at + 1])
end

local function foremost()
  local best, best_member, best_score
  for i = 1, #queues do
    local queue = queues[i]
    if queue.room > 0 then
      local member, score = head(queue)
      if member and (not best or score < best_score or (score == best_score and member < best_member)) then
        best, best_member, best_score = queue, member, score
      end
    end
  end
  return best, best_member
end

local ids = {}
local width = starts > 0 and shape.v + 1 or 0
-- Start the job of a queue's entry with the next start; what its last moment has passed leaves the queue.
local function start(queue, member)
  local id = sub(member, 18)
  local at = arg + #ids * width
  clock = clock + 1
  now = format('%.0f', clock)
  local case, text = change(id, shape, ARGV[at], false, at + 1, true)
  if case < 0 then
    local after = try('HGET', root .. 'j:' .. id, 'N')
    if not text or type(after) == 'table' or (after and tonumber(after) <= clock) then
      call('ZREM', root .. 'q:' .. queue.name, member)
    else
      queue.passed = queue.passed + 1
    end
    return
  end
  queue.room = queue.room - 1
  ids[#ids + 1] = id
  claimed[#claimed + 1] = id
  claimed[#claimed + 1] = text
end

local before = call('GET', entry)
if before and sub(before, 1, #op) == op then
  recall(before)
else
  for i = 1, #names do promote(names[i]) end
  local settings = #names > 0 and call('HMGET', root .. 'limits', unpack(names)) or {}
  for i = 1, #queues do queues[i].room = room(queues[i], settings[i]) end
  if wanted ~= '' then
    local got = try('HMGET', root .. 'j:' .. wanted, 'q', 'c')
    for i = 1, #queues do
      local queue = queues[i]
      if not got.err and got[2] and got[1] == queue.name and queue.room > 0 then
        local member = queue_member(wanted, got[2])
        if starts > 0 and call('ZSCORE', root .. 'q:' .. queue.name, member) then start(queue, member) end
      end
    end
  else
    local looked = 0
    while #ids < starts and looked < starts + 64 do
      local queue, member = foremost()
      if not queue then break end
      queue.at = queue.at + 2
      looked = looked + 1
      start(queue, member)
    end
    -- Tokens for idle workers: none where nothing can be claimed, one where something is left.
    for i = 1, #queues do
      local queue = queues[i]
      if queue.room > 0 and head(queue) then
        ready[queue.name] = nil
        announce_one(queue.name)
      else
        ready[queue.name] = nil
        call('DEL', root .. 'ready:' .. queue.name)
      end
    end
  end
  remember(ids)
end
local next_due = false
for i = 1, #names do
  local due = call('ZRANGE', root .. 'd:' .. names[i], 0, 0, 'WITHSCORES')[2]
  if due and (not next_due or tonumber(due) < tonumber(next_due)) then next_due = due end
end
save_fence()
flush()
return {now, outcomes, claimed, next_due}
