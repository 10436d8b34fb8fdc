-- Apply changes, and a worker's claim with them, in one atomic step.

-- name: apply
-- Apply changes in order, and then a worker's claim, in one atomic step. `match_branch` and `apply_branch` of
-- `milepost.core.transitions.operations` define what a change means. The branches of the transitions are compiled to Lua
-- and inserted at `BRANCHES`, and for starts and ends of runs at `STRAIGHT`, see `milepost.stores.redis.lua_compiler`.
--
-- ARGV[2..] the number of writes, and for each: id, number of its transition (then `!` to return the record, then `:` and
--           the unique key, if any), operation id, its values (NUL, or not sent at the end: missing); then `renew` with the arguments of
--           `renew(first)` in leases.lua, or `claim` with: worker, operation id, number of the claim, job id (empty: any),
--           the number of queues and for each its name and limit (empty: none); the number of the transition of its
--           starts, how many, and for each: operation id, values
-- Reply     the time; for each write the number of its branch (-1: refused), or an array of that number, the record,
--           1 if repeated, the owner of the key, the microseconds to wait after too many requests, the groups that it
--           closed; then the answers about the leases, or the ids and records of the claimed jobs and the next due time
-- Refusal   the script of a transition that creates records has no flags: a full server refuses it before it writes
--
-- `about(transition)` precedes it and returns: the number of values; whether the whole record is needed; the retention of
-- its operation ids (see `milepost.core.transitions.operation_ids`), by the first letter; whether tombstones of the id
-- count, too; and the fields to read otherwise. For transitions of callers, `operation_ids` precedes it as well.
local indexes, fence, claim, asked
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

-- Whether the draining lease of an id has this token, and with `overdue` has expired.
local function is_stopping(id, token, overdue)
  local lease = stops() and redis.call('HGET', root .. 's', id)
  if not lease or string.match(lease, '^%Z*') ~= token then return false end
  return not overdue or tonumber(redis.call('ZSCORE', root .. 'sx', id)) <= this.clock
end

-- Add what a change of the usage of a record adds to the ledger, as `changed_usage` of `milepost.core.ledger`. Lua's
-- numbers have 53 bits, so larger amounts are left to Redis.
local function spend(name, before, after)
  local got = redis.pcall('HMGET', name, 't', 'l', 'ancestors')
  if got.err then
    local text = '\n' .. redis.call('GET', name)
    got = {string.match(text, '\nt=([^\n]*)'), string.match(text, '\nl=([^\n]*)'), string.match(text, '\nancestors=([^\n]*)')}
  end
  local series, days = got[1] or '', math.floor(this.clock / 86400000000)
  local day, old = string.format('day:%06d', days), {}
  for pair in string.gmatch(got[2] or '', '[^\31]+') do
    if string.byte(pair) ~= 58 then series = series .. '\31' .. pair end
  end
  local books = {[day] = series, total = got[1] or ''}
  for id in string.gmatch(got[3] or '', '[^\31]+') do
    if groups().exists(id) then books['tree:' .. id] = '' end
  end
  for kind, amount in string.gmatch(before, '"([%w_]+)":(%d+)') do old[kind] = amount end
  for kind, amount in string.gmatch(after, '"([%w_]+)":(%d+)') do
    local less = old[kind] or '0'
    for book, of in pairs(books) do
      local key, field, sum = root .. 'u:' .. book, of .. '\31' .. kind, 0 -- from MAX_ROWS sums on, new ones are added up by type
      if book == day and redis.call('HLEN', key) >= 5000 and redis.call('HEXISTS', key, field) == 0 then field = books.total .. '\31*\31' .. kind end
      if #amount < 16 and #less < 16 then
        local more = tonumber(amount) - tonumber(less)
        if more ~= 0 then sum = redis.pcall('HINCRBY', key, field, string.format('%.0f', more)) end
      elseif amount ~= less then
        if less ~= '0' then redis.call('HINCRBY', key, field, '-' .. less) end
        sum = redis.pcall('HINCRBY', key, field, amount)
      end
      if type(sum) == 'table' or sum > 9e18 then redis.call('HSET', key, field, '9000000000000000000') end
    end
  end
  if redis.call('SADD', root .. 'u', day) == 1 then
    for _, book in ipairs(redis.call('SMEMBERS', root .. 'u')) do
      if book <= string.format('day:%06d', days - 100) then
        redis.call('DEL', root .. 'u:' .. book)
        redis.call('SREM', root .. 'u', book)
      end
    end
  end
end

--@claim
local writes, outcomes = tonumber(shift()), {}
local transition, width, all, retention, mortal, names
-- Where the newest id of a run's reports, checkpoints ("p") and steps begins in field `o`.
local places = {r = 10, p = 18, s = 26}

while true do
  local answer, id, wanted, op, first, key = false, nil, nil, nil, nil, nil
  if done < writes then
    id, wanted, op, first = ARGV[arg], tonumber(ARGV[arg + 1]), ARGV[arg + 2], arg + 3
    if not wanted then
      wanted, answer, key = string.match(ARGV[arg + 1], '^(%d+)(!?):?(.*)$')
      wanted, answer, key = tonumber(wanted), answer == '!', key ~= '' and key or nil
    end
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
  if wanted ~= transition then
    transition = wanted
    width, all, retention, mortal, names = about(transition)
  end
  if not claim then
    arg = first + width
    for i = #ARGV + 1, arg - 1 do ARGV[i] = '\0' end
  end
  if done > 0 or claim then
    this.clock = this.clock + 1
    this.now = string.format('%d', this.clock)
  end

  -- The record, or only the needed fields of an active one.
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

  local branch, text, repeated, holder, wait, closed = -1, false, 0, false, nil, nil
  repeat
    --STRAIGHT
    -- Was the operation applied before?
    local known, gone
    if retention == 'l' and fields.o and string.sub(fields.o, 1, 8) == op then known = string.sub(fields.o, 9, 9) end
    if retention == 'u' and fields.U then
      local at = 0
      repeat at = string.find(fields.U, op, at + 1, true) until not at or at % 9 == 1
      known = at and string.sub(fields.U, at + 8, at + 8)
    end
    if mortal then
      if fields.O == op then known = '0' end
      gone = redis.call('GET', root .. 'x:' .. id)
      if gone or fields.Q then
        asked = asked or open_operations()
        known = asked.recall(gone, op) or known or retention == 'c' and asked.recall(fields.Q, op)
      end
    end
    if known then
      branch, text, repeated = tonumber(known) or -1, look(id), 1
      break
    end

    -- Apply the first branch that matches; `old` keeps overwritten values, false where there was none.
    local old = {L = nil, S = nil, T = nil, a = nil, b = nil, j = nil, m = nil, o = nil, p = nil} -- at its usual size: growth is slow
    local kept, event, version, touched = nil, nil, nil, ''
    local stop_token, stop_expires, drop, remove, apart, fails, values, limit_changes
    --BRANCHES
    if branch >= 0 and status ~= '' then
      local place = places[retention]
      if place then
        if is_superseded(fields.o or '', op, place) then
          text, repeated = look(id), 1
          break
        end
        old.o = fields.o or false
        fields.o = with_run_id(fields.o or '', op, place)
      elseif retention == 'l' then
        local rest = string.sub(fields.o or '', 10)
        -- The receipt of an earlier run may come while the next one runs. And log lines are accepted until the code of a
        -- draining lease has stopped.
        local is_same_run = fields.T and old.T == nil
        if rest ~= '' and not is_same_run and not stop_token and (drop or not stops() or redis.call('HEXISTS', root .. 's', id) == 0) then
          rest = ''
        end
        old.o = fields.o or false
        fields.o = op .. branch .. rest
      elseif retention == 'u' then
        old.U = fields.U or false
        fields.U = string.sub((fields.U or '') .. op .. branch, -63)
      else
        asked = asked or open_operations()
        local recent, first = asked.fresh(fields.Q)
        if #recent >= 1216 then
          branch, wait = -1, math.max(1000000, (first + 60) * 1000000 - this.clock)
        else
          old.Q = fields.Q or false
          fields.Q = recent .. asked.entry(op, branch)
        end
      end
    end
    if branch < 0 then
      text = form ~= nil and look(id)
      holder = key and status == '' and redis.call('ZRANGE', root .. 'k:' .. key, -1, -1)[1] or false
      break
    end
    if status == '' then
      if event then
        old.O = fields.O or false
        fields.O = op
      else
        remove = true
      end
    end

    -- The decision is made; from here on it is written.
    if not indexes and (touched ~= '' or drop or remove or limit_changes) then indexes = open_indexes() end
    for i = 1, values and #values or 0, 2 do
      local key = root .. 'h:' .. values[i]
      redis.call('ZREM', root .. 'hx', values[i])
      if values[i + 1] then
        redis.call('HSET', key, 'v', values[i + 1], 'n', redis.call('INCR', root .. 'hv'))
        redis.call('PERSIST', key)
        redis.call('ZADD', root .. 'h', 0, values[i])
      else
        redis.call('DEL', key)
        redis.call('ZREM', root .. 'h', values[i])
      end
    end
    for i = 1, limit_changes and #limit_changes or 0 do indexes[limit_changes[i][1]](limit_changes[i][2], limit_changes[i][3]) end
    local freed, dropped
    if drop then freed, dropped = indexes.drop_stop(id) end
    if stop_token then
      indexes.add_stop(id, stop_token, stop_expires, fields.k or '', fields.S or '', fields.w or '', fields.l or '', fields.child_key)
    end
    local name = root .. 'j:' .. id
    if remove then
      if status ~= '' then
        for field, before in pairs(old) do fields[field] = before or nil end
        indexes.forget(id, fields, 'lqghdLake')
        asked = asked or open_operations()
        local born = fields.O and #fields.O == 8 and asked.entry(fields.O, '-') or ''
        local left = asked.fresh(gone) .. asked.fresh(fields.Q) .. born .. asked.entry(op, branch)
        redis.call('SET', root .. 'x:' .. id, left, 'PX', 3600000)
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
      -- Lua passes only some thousands of arguments at once, and the lifecycle events of a record are not bounded.
      for from = 1, n, 4000 do redis.call('HSET', name, unpack(put, from, math.min(from + 3999, n))) end
      if m > 1 then redis.call('HDEL', unpack(gone)) end
    end
    if apart and not remove then
      for field, value in pairs(apart) do
        if value then
          redis.call('HSET', root .. 'v:' .. id, field, value)
        elseif status ~= '' and (not whole or string.byte(old[field] or '') == 26) then
          redis.call('HDEL', root .. 'v:' .. id, field)
        end
      end
    end
    if not remove then
      if touched ~= '' then indexes.place(id, old, fields, touched) end
      if old.stale ~= nil then
        -- A time that is postponed keeps its place in the index; the sweep moves it when it gets there.
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
    if old.usage ~= nil and fields.usage ~= old.usage and not remove then spend(name, old.usage or '', fields.usage or '') end
    if freed and freed ~= '' then
      local waiting = redis.call('ZRANGE', root .. 'k:' .. freed, -1, -1)[1]
      if waiting and waiting ~= id then indexes.offer_again(waiting) end
    end
    if (fails or remove) and fields.children ~= 'keep' then closed = groups().closed({'orphans:' .. groups().plain(id)}) end
    if (drop or remove or old.z ~= nil or old.held ~= nil) and holds() then
      local names = (remove or old.z ~= nil) and groups().of(fields.l, fields.child_key) or {}
      names[#names + 1] = 'job:' .. groups().plain(id)
      for group in string.gmatch(dropped or '', '[^\31]+') do names[#names + 1] = group end
      if not remove and old.held ~= nil and fields.held ~= old.held and string.sub(fields.held or '', 1, 5) ~= 'user:' then names[#names + 1] = fields.held end
      local more = groups().closed(names)
      if closed and more then more[#more + 1] = closed[1] end
      closed = more or closed
    end
    if event then
      redis.call('XADD', root .. 'f', '*', 'i', id, 'v', version, 'e', event)
      -- The length is approximate anyway.
      if this.clock % 64 == 0 then redis.call('XTRIM', root .. 'f', 'MAXLEN', '~', '100000') end
      if kept == 'list' and not remove then keep_event(id, version, event) end
    end
    text = answer and not remove and shown(id, fields)
  until true

  if claim then
    claim.started(id, branch, text)
  else
    done = done + 1
    text = text and filled(id, text)
    if closed then
      outcomes[done] = {branch, text, repeated, holder, 0, closed}
    elseif text or holder or branch < 0 or repeated == 1 then
      outcomes[done] = {branch, text, repeated, holder, wait}
    else
      outcomes[done] = branch
    end
  end
end

local claimed, next_due
if claim then claimed, next_due = claim.close() end
if fence then redis.call('SET', root .. 'fence', string.format('%d', fence)) end
if indexes then indexes.flush() end
if claim then return {this.now, outcomes, claimed, next_due} end
return {this.now, outcomes, ARGV[arg] == 'renew' and renew(arg + 1) or nil}
