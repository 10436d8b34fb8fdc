-- Apply changes, in order, and then let a worker claim: one atomic step for the lot. What the words of a change mean is
-- said by `fit` and `perform` of `milepost.core.change`; the store writes the cases of the shapes in Lua where this file
-- says `@cases`, see `milepost.stores.redis.shapes`.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the number of writes, and for each: id, number of its shape, operation id, unique key (empty:
--          none), whether to answer (1 or 0), its values (NUL: missing); `renew` with what leases.lua takes, or `claim` with: worker,
--          operation id, job id (empty: any), the number of queues and for each its name and limit (empty: none); the number of the
--          shape of its starts, how many, and for each: operation id, values
-- Reply    the time; for each write the number of its case (-1: refused), or an array of that number, the record,
--          1 when repeated, the holder of the key; then the answers about the leases, or the ids and records of the claimed
--          and the next due time
-- Refusal  the script of a shape that makes records has no flags: a full server refuses it before it writes anything
--
-- Before it stands `about(shape)`: the number of its values; whether the whole record is needed; whether records are
-- made or removed; what is read of a record otherwise.
local indexes, fence, claim
local arg, done = 2, 0
local function shift()
  arg = arg + 1
  return ARGV[arg - 1]
end

-- Whether another record of these statuses (between bars) is the newest with a unique key.
local function is_taken(id, key, statuses)
  local other = key and key ~= '' and redis.call('ZRANGE', root .. 'k:' .. key, -1, -1)[1]
  if not other or other == id then return false end
  local status = redis.pcall('HGET', root .. 'j:' .. other, 's')
  if type(status) == 'table' then
    status = redis.pcall('GET', root .. 'j:' .. other)
    status = type(status) == 'string' and string.match(status, '\ns=([^\n]*)')
  end
  return string.find(statuses, '|' .. (status or '') .. '|', 1, true) ~= nil
end

-- Whether the stopping lease of an id has that token, and has run out when that is asked.
local function is_stopping(id, token, overdue)
  local lease = stops() and redis.call('HGET', root .. 's', id)
  if not lease or string.match(lease, '^%Z*') ~= token then return false end
  return not overdue or tonumber(redis.call('ZSCORE', root .. 'sx', id)) <= this.clock
end

-- Keep what a claim is about, and choose whom to start next. Called once, when the writes are done.
local function open_claim()
  local worker, op, wanted = shift(), shift(), shift()
  local queues, names = {}, {}
  for i = 1, tonumber(shift()) do
    names[i] = shift()
    queues[i] = {name = names[i], limit = tonumber(shift()), at = 1, passed = 0, heads = {}, last = false}
  end
  local shape, starts = tonumber(shift()), tonumber(shift())
  local stride = about(shape) + 1
  local claimed, entry, looked, chosen = {}, root .. 'c:' .. worker, 0, nil
  local ids = {}

  -- How many more leases the slot of a queue may have: the setting comes before the wish of the worker.
  local function room(queue, setting)
    local limit, paused = string.match(setting or '', '^(%-?%d*):(%d)$')
    if paused == '1' then return 0 end
    limit = tonumber(limit) or queue.limit
    if not limit then return math.huge end
    local held = tonumber(redis.call('HGET', root .. 'n', queue.name) or 0)
    return limit - held - (indexes.counts.n[queue.name] or 0)
  end

  -- The foremost entry of a queue that was not looked at yet.
  local function head(queue)
    if queue.at > #queue.heads then
      if queue.last or queue.room <= 0 then return end
      local most = math.min(starts + 1, 200)
      queue.heads = redis.call('ZRANGE', root .. 'q:' .. queue.name, queue.passed, queue.passed + most - 1, 'WITHSCORES')
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

  local function the_wanted()
    if looked > 0 then return end
    looked = 1
    local got = redis.pcall('HMGET', root .. 'j:' .. wanted, 'q', 'c')
    for i = 1, #queues do
      local queue = queues[i]
      if not got.err and got[2] and got[1] == queue.name and queue.room > 0 then
        local member = indexes.member(wanted, got[2])
        if redis.call('ZSCORE', root .. 'q:' .. queue.name, member) then return queue, member end
      end
    end
  end

  indexes = indexes or open_indexes()
  claim = {}

  -- The id to start next, with its shape, the operation id and the place of its values; nothing when the claim is over.
  function claim.next()
    if #ids == starts or looked >= starts + 64 then return end
    local queue, member
    if wanted ~= '' then
      queue, member = the_wanted()
    else
      queue, member = foremost()
      if queue then queue.at = queue.at + 2 end
      looked = looked + 1
    end
    if not queue then return end
    chosen = {queue = queue, member = member}
    local first = arg + #ids * stride
    return string.sub(member, 18), shape, ARGV[first], first + 1
  end

  -- What became of it: a job whose last moment has passed leaves the queue.
  function claim.took(id, case, text)
    local queue = chosen.queue
    if case >= 0 then
      queue.room = queue.room - 1
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

  -- The answer, kept for a minute in case that it is lost.
  function claim.close()
    if not claim.recalled then
      for i = 1, wanted == '' and #queues or 0 do
        local queue = queues[i]
        -- Tokens for idle workers: none where nothing can be claimed, one where something is left.
        indexes.ready[queue.name] = nil
        if queue.room > 0 and head(queue) then
          indexes.announce_one(queue.name)
        else
          redis.call('DEL', root .. 'ready:' .. queue.name)
        end
      end
      local parts = {op}
      for i = 1, #ids do parts[i + 1] = string.format('%03d', #ids[i]) .. ids[i] end
      redis.call('SET', entry, table.concat(parts), 'PX', 60000)
    end
    local next_due = false
    for i = 1, #names do
      local due = redis.call('ZRANGE', root .. 'd:' .. names[i], 0, 0, 'WITHSCORES')[2]
      if due and (not next_due or tonumber(due) < tonumber(next_due)) then next_due = due end
    end
    return claimed, next_due
  end

  local before = redis.call('GET', entry)
  if before and string.sub(before, 1, #op) == op then
    claim.recalled, starts = true, 0
    local place = #op + 1
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
  local settings = #names > 0 and redis.call('HMGET', root .. 'limits', unpack(names)) or {}
  for i = 1, #queues do queues[i].room = room(queues[i], settings[i]) end
end

local writes, outcomes = tonumber(shift()), {}
local shape, width, all, mortal, names

while true do
  local id, wanted, op, first, key, answer
  if done < writes then
    id, wanted, op, key, answer = ARGV[arg], tonumber(ARGV[arg + 1]), ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4] == '1'
    if key == '' then key = nil end
    first = arg + 5
  else
    if not claim then
      if ARGV[arg] ~= 'claim' then break end
      arg = arg + 1
      open_claim()
    end
    id, wanted, op, first = claim.next()
    if not id then break end
    answer = true
  end
  if wanted ~= shape then
    shape = wanted
    width, all, mortal, names = about(shape)
  end
  if not claim then arg = first + width end
  if done > 0 or claim then
    this.clock = this.clock + 1
    this.now = string.format('%d', this.clock)
  end

  -- The record, or of one that lives the fields that are asked for.
  local fields, form
  local whole = answer or all
  if not whole then
    local got = redis.pcall('HMGET', root .. 'j:' .. id, unpack(names))
    if got.err then
      whole = true
    else
      fields = {}
      for i = 1, #names do fields[names[i]] = got[i] or nil end
      form = fields.s and 'hash'
    end
  end
  if whole then fields, form = read(id) end
  local status = fields.s or ''

  local case, text, repeated, holder = -1, false, 0, false
  repeat
    -- The same operation again?
    if mortal then
      local gone = redis.call('GET', root .. 'x:' .. id)
      if gone and string.sub(gone, 1, 8) == op then
        repeated = 1
        break
      elseif gone and string.sub(gone, 9) == op then
        case, repeated = 0, 1
        break
      end
    end
    if fields.O == op then
      case, text, repeated = 0, look(id), 1
      break
    end
    local known = fields.o and string.find(fields.o, op, 1, true)
    if known and known % 9 == 1 then
      case, text, repeated = tonumber(string.sub(fields.o, known + 8, known + 8)), look(id), 1
      break
    end

    -- The first case that fits is performed: `old` keeps what was overwritten, false where there was nothing.
    local old, kind, kept, event, version, touched = {}, nil, nil, nil, nil, ''
    local stop_token, stop_expires, drop, remove
    --@cases
    if case < 0 then
      text = form ~= nil and look(id)
      holder = key and status == '' and redis.call('ZRANGE', root .. 'k:' .. key, -1, -1)[1] or false
      break
    end
    if status ~= '' then
      old.o = fields.o or false
      fields.o = string.sub((fields.o or '') .. op .. case, -36)
    elseif event then
      old.O = fields.O or false
      fields.O = op
    else
      remove = true
    end

    -- All is decided; from here on it is written.
    if not indexes and (touched ~= '' or drop or remove) then indexes = open_indexes() end
    local freed = drop and indexes.drop_stop(id)
    if stop_token then
      indexes.add_stop(id, stop_token, stop_expires, fields.k or '', fields.S or '', fields.w or '')
    end
    local name = root .. 'j:' .. id
    if remove then
      if status ~= '' then
        for field, before in pairs(old) do fields[field] = before or nil end
        indexes.forget(id, fields)
        redis.call('SET', root .. 'x:' .. id, string.format('%-8s', fields.O or '') .. op, 'PX', 60000)
      end
    elseif fields.z and fields.z ~= '' and not fields.T then
      redis.call('SET', name, pack_whole(fields))
    else
      local put, gone, n, m = {}, {name}, 0, 1
      if form == 'text' or form == 'damaged' then
        redis.call('DEL', name)
        for field, value in pairs(fields) do
          put[n + 1], put[n + 2] = field, value
          n = n + 2
        end
      else
        for field, before in pairs(old) do
          local value = fields[field]
          if not value then
            if before then
              m = m + 1
              gone[m] = field
            end
          elseif value ~= before then
            put[n + 1], put[n + 2] = field, value
            n = n + 2
          end
        end
      end
      -- Lua hands over only some thousands of words at once, and the lifecycle events of a record have no bound.
      for from = 1, n, 4000 do redis.call('HSET', name, unpack(put, from, math.min(from + 3999, n))) end
      if m > 1 then redis.call('HDEL', unpack(gone)) end
    end
    if not remove then
      if touched ~= '' then indexes.place(id, old, fields, touched) end
      if old.stale ~= nil then
        -- A moment that is put off stays where it is in the index: the sweep moves it on when it comes to it.
        if fields.stale then
          if not old.stale or tonumber(fields.stale) < tonumber(old.stale) then
            redis.call('ZADD', root .. 'stale', fields.stale, id)
          end
        elseif old.stale then
          redis.call('ZREM', root .. 'stale', id)
        end
      end
      if old.stalled ~= nil and (old.stalled or fields.stalled) then
        if fields.stalled and fields.stalled ~= '' then
          redis.call('ZADD', root .. 'stalled', fields.c, id)
        else
          redis.call('ZREM', root .. 'stalled', id)
        end
      end
    end
    if freed and freed ~= '' then
      local waiting = redis.call('ZRANGE', root .. 'k:' .. freed, -1, -1)[1]
      if waiting and waiting ~= id then indexes.offer_again(waiting) end
    end
    if event then
      redis.call('XADD', root .. 'f', 'MAXLEN', '~', 100000, '*', 'i', id, 'v', version, 'e', event)
      if kept == 'list' and not remove then
        if redis.call('RPUSH', root .. 'e:' .. id, version .. '\0' .. event) > 1000 then
          redis.call('LPOP', root .. 'e:' .. id)
        end
      end
    end
    text = answer and not remove and shown(id, fields)
  until true

  if claim then
    claim.took(id, case, text)
  else
    done = done + 1
    if text or holder or case < 0 or repeated == 1 then
      outcomes[done] = {case, text, repeated, holder}
    else
      outcomes[done] = case
    end
  end
end

local claimed, next_due
if claim then claimed, next_due = claim.close() end
if fence then redis.call('SET', root .. 'fence', string.format('%d', fence)) end
if indexes then indexes.flush() end
if claim then return {this.now, outcomes, claimed, next_due} end
return {this.now, outcomes, ARGV[arg] == 'renew' and renew(arg + 1) or nil}
