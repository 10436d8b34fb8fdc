-- Prelude, after indexes.lua, of what applies changes: the language of `milepost.core.change`, whose `fit` and
-- `perform` say what every word means. A shape comes as JSON that the caller has compiled:
--   c  the cases: s statuses, g guards, o operations, e event, k where it is kept, m fields to emit, d place of its
--      data, p the indexes that it touches
--   f  the fields that it reads; w whether the whole record is needed; n whether a case starts from no record or
--      removes one
-- Sources: a number is a place among the values, "=text" the text, ".f" a field.
local fence, last_fence

local function stopping(id)
  if not stops() then return end
  local text = call('HGET', root .. 's', id)
  if text then return match(text, '^(%Z*)%z(%Z*)%z(%Z*)%z(%Z*)$') end
end

-- End the stopping lease of an id; the unique key that it kept.
local function drop_stop(id)
  local token, key, slot = stopping(id)
  if not token then return end
  call('HDEL', root .. 's', id)
  call('ZREM', root .. 'sx', id)
  if key ~= '' and call('HINCRBY', root .. 'sk', key, -1) <= 0 then call('HDEL', root .. 'sk', key) end
  count('n', slot, -1)
  any_stops = nil
  return key
end

local function add_stop(id, token, expires, key, slot, worker)
  drop_stop(id)
  call('HSET', root .. 's', id, token .. '\0' .. key .. '\0' .. slot .. '\0' .. worker)
  call('ZADD', root .. 'sx', expires, id)
  if key ~= '' then call('HINCRBY', root .. 'sk', key, 1) end
  count('n', slot, 1)
  if worker ~= '' then woken[worker] = true end
  any_stops = true
end

-- The newest record with a unique key.
local function holder_of(key)
  return call('ZRANGE', root .. 'k:' .. key, -1, -1)[1]
end

local function status_of(id)
  local status = try('HGET', root .. 'j:' .. id, 's')
  if type(status) == 'table' then
    local text = try('GET', root .. 'j:' .. id)
    status = type(text) == 'string' and match(text, '\ns=([^\n]*)')
  end
  return status or ''
end

local function source(src, at, fields)
  if type(src) == 'number' then return ARGV[at + src] end
  if byte(src) == 61 then return sub(src, 2) end
  return fields[sub(src, 2)]
end

local function number(text)
  return tonumber(text) or 0
end

local function holds(guard, id, fields, at, key)
  local word, field = guard[1], guard[2]
  if word == 'token' then
    return some(fields.T) and fields.T == source(field, at, fields)
  elseif word == 'eq' then
    return (fields[field] or '') == (source(guard[3], at, fields) or '')
  elseif word == 'ne' then
    return (fields[field] or '') ~= (source(guard[3], at, fields) or '')
  elseif word == 'lt' then
    return number(fields[field]) < number(source(guard[3], at, fields))
  elseif word == 'ge' then
    return number(fields[field]) >= number(source(guard[3], at, fields))
  elseif word == 'has' then
    return fields[field] ~= nil
  elseif word == 'lacks' then
    return fields[field] == nil
  elseif word == 'past' then
    return fields[field] ~= nil and number(fields[field]) <= clock
  elseif word == 'ahead' then
    return fields[field] == nil or number(fields[field]) > clock
  elseif word == 'due' then
    return fields[field] == nil or number(fields[field]) <= clock
  elseif word == 'free' then
    return not parked(id, some(fields.k) or key)
  elseif word == 'unique' then
    local wanted = key or some(fields.k)
    local holder = wanted and holder_of(wanted)
    return not holder or holder == id or not find(' ' .. field .. ' ', ' ' .. status_of(holder) .. ' ', 1, true)
  elseif word == 'stopping' or word == 'overdue' then
    local token = stopping(id)
    if not token or token ~= source(field, at, fields) then return false end
    return word == 'stopping' or tonumber(call('ZSCORE', root .. 'sx', id)) <= clock
  end
  error('unknown guard ' .. tostring(word))
end

local function fit(shape, id, fields, at, key)
  local status = fields.s or ''
  local cases = shape.c
  for index = 1, #cases do
    local case = cases[index]
    if case.s[status] then
      local ok = true
      local guards = case.g
      for i = 1, guards and #guards or 0 do
        if not holds(guards[i], id, fields, at, key) then
          ok = false
          break
        end
      end
      if ok then return index end
    end
  end
end

local function set(fields, old, name, value)
  if old[name] == nil then old[name] = fields[name] or false end
  fields[name] = value
end

-- Change the fields as the operations say; what else they ask for: stop (token, expires), drop, remove.
local function perform(ops, fields, old, at)
  local stop_token, stop_expires, drop, remove
  for i = 1, #ops do
    local op = ops[i]
    local word, field = op[1], op[2]
    if word == 'set' then
      local value = source(op[3], at, fields)
      if value then set(fields, old, field, value) end
    elseif word == 'clear' then
      for j = 2, #op do set(fields, old, op[j], nil) end
    elseif word == 'max' then
      local value, held_now = source(op[3], at, fields), some(fields[field])
      if value and not (held_now and number(held_now) >= number(value)) then set(fields, old, field, value) end
    elseif word == 'add' then
      local value = source(op[3], at, fields)
      if value then set(fields, old, field, format('%.0f', number(fields[field]) + number(value))) end
    elseif word == 'append' then
      local value, text = source(op[3], at, fields), some(fields[field])
      if value then set(fields, old, field, text and text .. ',' .. value or value) end
    elseif word == 'sum' then
      set(fields, old, field, format('%.0f', number(source(op[3], at, fields)) + number(source(op[4], at, fields))))
    elseif word == 'stamp' then
      local offset = op[3] == nil and 0 or source(op[3], at, fields)
      if offset then set(fields, old, field, format('%.0f', clock + offset)) end
    elseif word == 'once' then
      if fields[field] == nil then set(fields, old, field, now) end
    elseif word == 'take' then
      fence = fence or number(call('GET', root .. 'fence'))
      fence = math.max(fence + 1, clock)
      set(fields, old, 'T', format('%.0f', fence) .. ':' .. (source(field, at, fields) or ''))
      set(fields, old, 'L', format('%.0f', clock + number(source(op[3], at, fields))))
    elseif word == 'stop' then
      if some(fields.T) then stop_token, stop_expires = fields.T, fields.L or '0' end
      set(fields, old, 'T', nil)
      set(fields, old, 'L', nil)
    elseif word == 'drop' then
      drop = true
    elseif word == 'remove' then
      remove = true
    else
      error('unknown operation ' .. tostring(word))
    end
  end
  return stop_token, stop_expires, drop, remove
end

-- The text of an event: kind (empty: as the status), time and the fields that it emits.
local function told(case, fields, at)
  local parts, n = {case.e == fields.s and '' or case.e, now}, 2
  local emit = case.m
  for i = 1, emit and #emit or 0 do
    local value = some(fields[emit[i]])
    if value then
      n = n + 1
      parts[n] = emit[i] .. '=' .. value
    end
  end
  if case.d then
    parts[n + 1] = 'data=' .. ARGV[at + case.d]
  end
  return concat(parts, '\0')
end

local function keep(id, old, fields, form, whole)
  local key = root .. 'j:' .. id
  if some(fields.z) and not some(fields.T) then
    call('SET', key, pack(fields, true))
    return
  end
  local put, gone, n, m = {}, {}, 0, 0
  if form == 'text' or form == 'damaged' then
    call('DEL', key)
    for name, value in pairs(fields) do
      put[n + 1], put[n + 2] = name, value
      n = n + 2
    end
  else
    for name, before in pairs(old) do
      local value = fields[name]
      if value then
        if value ~= before then
          put[n + 1], put[n + 2] = name, value
          n = n + 2
        end
      elseif before or not whole then
        m = m + 1
        gone[m] = name
      end
    end
  end
  if n > 0 then call('HSET', key, unpack(put)) end
  if m > 0 then call('HDEL', key, unpack(gone)) end
end

-- Apply one change to one id. Its values begin at ARGV[at]. The index of the case, or -1; then the text of the record
-- as it is when that was asked for or the change was refused; whether it was a repetition; the holder of its key.
local function change(id, shape, op, key, at, answer)
  local whole = shape.w or answer
  local fields, form
  if not whole then
    local names = shape.f
    local got = try('HMGET', root .. 'j:' .. id, unpack(names))
    if got.err then
      whole = true
    else
      fields = {}
      for i = 1, #names do fields[names[i]] = got[i] or nil end
      form = fields.s and 'hash'
    end
  end
  if whole then fields, form = read(id) end

  if shape.n then
    local gone = call('GET', root .. 'x:' .. id)
    if gone and sub(gone, 1, 8) == op then return -1, false, true end
    if gone and sub(gone, 9) == op then return 0, false, true end
  end
  if fields.O == op then
    return 0, look(id), true
  elseif fields.o then
    local place_of = find(fields.o, op, 1, true)
    if place_of and place_of % 9 == 1 then return tonumber(sub(fields.o, place_of + 8, place_of + 8)), look(id), true end
  end

  local index = fit(shape, id, fields, at, key)
  if not index then
    return -1, form ~= nil and look(id), false, key and not fields.s and holder_of(key) or false
  end
  local case = shape.c[index]
  local old, existed = {}, fields.s
  local stop_token, stop_expires, drop, remove = perform(case.o or {}, fields, old, at)
  local version, event
  if case.e then
    version = format('%.0f', number(fields.v) + 1)
    set(fields, old, 'v', version)
    set(fields, old, 'u', now)
    event = told(case, fields, at)
    if case.k == 'life' then set(fields, old, '!' .. version, event) end
  end
  if existed then
    set(fields, old, 'o', sub((fields.o or '') .. op .. (index - 1), -36))
  elseif case.e then
    set(fields, old, 'O', op)
  else
    remove = true
  end

  local freed = drop and drop_stop(id)
  if stop_token then
    add_stop(id, stop_token, stop_expires, fields.k or '', fields.S or '', fields.w or '')
  end
  if not remove then
    keep(id, old, fields, form, whole)
    place(id, old, fields, case.p)
  elseif existed then
    for name, before in pairs(old) do fields[name] = before or nil end
    forget(id, fields)
    call('SET', root .. 'x:' .. id, format('%-8s', fields.O or '') .. op, 'PX', 60000)
  end
  if freed and freed ~= '' then
    local waiting = holder_of(freed)
    if waiting and waiting ~= id then offer_again(waiting) end
  end
  if event then
    call('XADD', root .. 'f', 'MAXLEN', '~', 100000, '*', 'i', id, 'v', version, 'e', event)
    if case.k == 'list' and not remove then
      if call('RPUSH', root .. 'e:' .. id, version .. '\0' .. event) > 1000 then call('LPOP', root .. 'e:' .. id) end
    end
  end
  return index - 1, answer and not remove and shown(id, fields)
end

local function save_fence()
  if fence then call('SET', root .. 'fence', format('%.0f', fence)) end
end

