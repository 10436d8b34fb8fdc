-- Apply changes, in order, and then let a worker claim: one atomic step for the lot. What every word of a change means
-- is said by `fit` and `perform` of `milepost.core.change`.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen
--          the number of shapes, and each as a JSON array (below)
--          the number of writes, and for each: id, number of its shape, operation id, whether to answer (1 or 0),
--          unique key (empty: none), its values
--          when there is a claim: worker, operation id, job id (empty: any), the number of queues and for each its
--          name and limit (empty: none); the number of its shape, the number of starts and for each: operation id,
--          its values
-- Reply    the time; for each write the number of its case (-1: refused), or an array of that number, the record,
--          1 when repeated, the holder of the key; ids and records of the claimed; the next due time
-- Refusal  sent without the flag allow-oom it is refused by a full server before it writes anything
--
-- A shape: the number of its values; 1 when the whole record is needed; 1 when it makes or removes records; the number
-- of fields that it reads, and each; then its cases: where the next one begins; its statuses between bars; the letters
-- of the indexes that it touches; event; where that is kept; place of its data, or -1; the number of fields that it
-- emits, and each; the number of guards, and each as word, field, source; operations as word, field, source (a second
-- one for `sum`), but `clear`, the number of fields, and each. Sources: a number is a place among the values, "=text"
-- the text, ".f" a field.
local indexes, fence, claim
local arg, done = 2, 0
local function shift()
  arg = arg + 1
  return ARGV[arg - 1]
end

local function source(src, first, fields)
  if type(src) == 'number' then return ARGV[first + src] end
  if string.byte(src) == 61 then return string.sub(src, 2) end
  return fields[string.sub(src, 2)]
end

local function set(fields, old, name, value)
  if old[name] == nil then old[name] = fields[name] or false end
  fields[name] = value
end

-- Keep what a claim is about, and choose whom to start next. Called once, when the writes are done.
local function open_claim(shapes)
  local worker, op, wanted = shift(), shift(), shift()
  local queues, names = {}, {}
  for i = 1, tonumber(shift()) do
    names[i] = shift()
    queues[i] = {name = names[i], limit = tonumber(shift()), at = 1, passed = 0, heads = {}, last = false}
  end
  local shape, starts = shapes[tonumber(shift())], tonumber(shift())
  local width = starts > 0 and shape[1] + 1 or 0
  local claimed, entry, looked, chosen = {}, root .. 'c:' .. worker, 0, nil
  local ids = {}

  -- How many more leases the slot of a queue may have: the setting comes before the wish of the worker.
  local function room(queue, setting)
    local limit, paused = string.match(setting or '', '^(%d*):(%d)$')
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

  -- The id to start next, with its shape, operation id and the place of its values; nothing when the claim is over.
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
    local first = arg + #ids * width
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

local shapes = {}
for i = 1, tonumber(shift()) do shapes[i] = cjson.decode(shift()) end
local writes, outcomes = tonumber(shift()), {}

while true do
  local id, shape, op, first, key, answer
  if done < writes then
    id, shape, op, answer, key = ARGV[arg], shapes[tonumber(ARGV[arg + 1])], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
    answer, key, first = answer == '1', key ~= '' and key, arg + 5
    arg = first + shape[1]
  else
    if not claim then
      if not ARGV[arg] then break end
      open_claim(shapes)
    end
    id, shape, op, first = claim.next()
    if not id then break end
    answer, key = true, false
  end
  if done > 0 or claim then
    this.clock = this.clock + 1
    this.now = string.format('%.0f', this.clock)
  end

  -- The record, or of one that lives the fields that are asked for.
  local fields, form
  local whole = answer or shape[2] == 1
  if not whole then
    local got = redis.pcall('HMGET', root .. 'j:' .. id, unpack(shape, 5, 4 + shape[4]))
    if got.err then
      whole = true
    else
      fields = {}
      for i = 1, shape[4] do fields[shape[4 + i]] = got[i] or nil end
      form = fields.s and 'hash'
    end
  end
  if whole then fields, form = read(id) end
  local status = fields.s or ''

  local case, text, repeated, holder = -1, false, 0, false
  repeat
    -- The same operation again?
    if shape[3] == 1 then
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

    -- The first case that fits.
    local c, number, fits, i = 5 + shape[4], 0, false, 0
    while shape[c] do
      if string.find(shape[c + 1], '|' .. status .. '|', 1, true) then
        i = c + 7 + shape[c + 6]
        fits = true
        local last = i + 3 * shape[i]
        i = i + 1
        while i <= last do
          local word, field, src = shape[i], shape[i + 1], shape[i + 2]
          local value = fields[field]
          if word == 'token' then
            fits = fields.T ~= nil and fields.T ~= '' and fields.T == source(src, first, fields)
          elseif word == 'eq' then
            fits = (value or '') == (source(src, first, fields) or '')
          elseif word == 'ne' then
            fits = (value or '') ~= (source(src, first, fields) or '')
          elseif word == 'lt' then
            fits = (tonumber(value) or 0) < (tonumber(source(src, first, fields)) or 0)
          elseif word == 'ge' then
            fits = (tonumber(value) or 0) >= (tonumber(source(src, first, fields)) or 0)
          elseif word == 'has' then
            fits = value ~= nil
          elseif word == 'lacks' then
            fits = value == nil
          elseif word == 'past' then
            fits = value ~= nil and (tonumber(value) or 0) <= this.clock
          elseif word == 'ahead' then
            fits = value == nil or (tonumber(value) or 0) > this.clock
          elseif word == 'due' then
            fits = value == nil or (tonumber(value) or 0) <= this.clock
          elseif word == 'free' then
            fits = not parked(id, fields.k ~= '' and fields.k or key)
          elseif word == 'unique' then
            local wanted = key or fields.k
            local other = wanted and wanted ~= '' and redis.call('ZRANGE', root .. 'k:' .. wanted, -1, -1)[1]
            if other and other ~= id then
              local its = redis.pcall('HGET', root .. 'j:' .. other, 's')
              if type(its) == 'table' then
                its = redis.pcall('GET', root .. 'j:' .. other)
                its = type(its) == 'string' and string.match(its, '\ns=([^\n]*)')
              end
              fits = not string.find(src, '|' .. (its or '') .. '|', 1, true)
            end
          elseif word == 'stopping' or word == 'overdue' then
            local lease = stops() and redis.call('HGET', root .. 's', id)
            fits = lease and string.match(lease, '^%Z*') == source(src, first, fields)
            if fits and word == 'overdue' then fits = tonumber(redis.call('ZSCORE', root .. 'sx', id)) <= this.clock end
          else
            error('unknown guard ' .. tostring(word))
          end
          if not fits then break end
          i = i + 3
        end
        if fits then break end
      end
      c, number = shape[c], number + 1
    end
    if not fits then
      text = form ~= nil and look(id)
      holder = key and status == '' and redis.call('ZRANGE', root .. 'k:' .. key, -1, -1)[1] or false
      break
    end
    case = number

    -- Its operations. `old` keeps what was overwritten, false where there was nothing.
    local old, stop_token, stop_expires, drop, remove = {}, nil, nil, false, false
    local last = shape[c] - 1
    while i <= last do
      local word, field, src = shape[i], shape[i + 1], shape[i + 2]
      if word == 'set' then
        local value = source(src, first, fields)
        if value then set(fields, old, field, value) end
      elseif word == 'clear' then
        for j = i + 2, i + 1 + field do set(fields, old, shape[j], nil) end
        i = i + field - 1
      elseif word == 'max' then
        local value, before = source(src, first, fields), fields[field]
        if value and not (before and before ~= '' and tonumber(before) >= tonumber(value)) then
          set(fields, old, field, value)
        end
      elseif word == 'add' then
        local value = source(src, first, fields)
        if value then set(fields, old, field, string.format('%.0f', (tonumber(fields[field]) or 0) + value)) end
      elseif word == 'append' then
        local value, before = source(src, first, fields), fields[field]
        if value then set(fields, old, field, before and before ~= '' and before .. ',' .. value or value) end
      elseif word == 'sum' then
        local a, b = source(src, first, fields), source(shape[i + 3], first, fields)
        set(fields, old, field, string.format('%.0f', (tonumber(a) or 0) + (tonumber(b) or 0)))
        i = i + 1
      elseif word == 'stamp' then
        local offset = source(src, first, fields)
        if offset then set(fields, old, field, string.format('%.0f', this.clock + offset)) end
      elseif word == 'once' then
        if fields[field] == nil then set(fields, old, field, this.now) end
      elseif word == 'take' then
        fence = fence or tonumber(redis.call('GET', root .. 'fence') or 0)
        fence = math.max(fence + 1, this.clock)
        set(fields, old, 'T', string.format('%.0f', fence) .. ':' .. (source(field, first, fields) or ''))
        set(fields, old, 'L', string.format('%.0f', this.clock + (tonumber(source(src, first, fields)) or 0)))
      elseif word == 'stop' then
        if fields.T and fields.T ~= '' then stop_token, stop_expires = fields.T, fields.L or '0' end
        set(fields, old, 'T', nil)
        set(fields, old, 'L', nil)
      elseif word == 'drop' then
        drop = true
      elseif word == 'remove' then
        remove = true
      else
        error('unknown operation ' .. tostring(word))
      end
      i = i + 3
    end

    -- Its event: kind (empty: as the status), time and the fields that it emits.
    local event, version
    if shape[c + 3] ~= '' then
      version = string.format('%.0f', (tonumber(fields.v) or 0) + 1)
      set(fields, old, 'v', version)
      set(fields, old, 'u', this.now)
      local parts, n = {shape[c + 3] == fields.s and '' or shape[c + 3], this.now}, 2
      for j = c + 7, c + 6 + shape[c + 6] do
        local value = fields[shape[j]]
        if value and value ~= '' then
          n = n + 1
          parts[n] = shape[j] .. '=' .. value
        end
      end
      if shape[c + 5] >= 0 then parts[n + 1] = 'data=' .. ARGV[first + shape[c + 5]] end
      event = table.concat(parts, '\0')
      if shape[c + 4] == 'life' then set(fields, old, '!' .. version, event) end
    end
    if status ~= '' then
      set(fields, old, 'o', string.sub((fields.o or '') .. op .. number, -36))
    elseif event then
      set(fields, old, 'O', op)
    else
      remove = true
    end

    -- All is decided; from here on it is written.
    local touched = shape[c + 2]
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
      redis.call('SET', name, pack(fields, true))
    else
      local put, gone, n, m = {name}, {name}, 1, 1
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
            if before or not whole then
              m = m + 1
              gone[m] = field
            end
          elseif value ~= before then
            put[n + 1], put[n + 2] = field, value
            n = n + 2
          end
        end
      end
      if n > 1 then redis.call('HSET', unpack(put)) end
      if m > 1 then redis.call('HDEL', unpack(gone)) end
    end
    if touched ~= '' and not remove then indexes.place(id, old, fields, touched) end
    if freed and freed ~= '' then
      local waiting = redis.call('ZRANGE', root .. 'k:' .. freed, -1, -1)[1]
      if waiting and waiting ~= id then indexes.offer_again(waiting) end
    end
    if event then
      redis.call('XADD', root .. 'f', 'MAXLEN', '~', 100000, '*', 'i', id, 'v', version, 'e', event)
      if shape[c + 4] == 'list' and not remove then
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
if fence then redis.call('SET', root .. 'fence', string.format('%.0f', fence)) end
if indexes then indexes.flush() end
if claim then return {this.now, outcomes, claimed, next_due} end
return {this.now, outcomes}
