-- The groups that jobs wait for.

-- name: groups
-- Prelude of scripts that write records: what holds a job, as in `milepost.core.placement`. `groups()` creates the
-- functions where they are needed.
--
-- m:<group>:<status>   the ids of members, by the status in which they ended, empty while they are open
-- sg          how many draining leases each group has
-- held        the number of jobs that each group holds      h:<group>   their ids by creation
-- closing     groups that closed while jobs waited for them, until a sweep finds that none waits
-- g:<group>   the last status of removed members -> id, one of each, while the `after` of a record names the group
--
-- Whether any job is held; checked once.
local function holds()
  if this.held == nil then this.held = redis.call('EXISTS', root .. 'held') == 1 end
  return this.held
end

local function groups()
  if this.groups then return this.groups end
  local G = {}
  this.groups = G

  -- The stored form of an id, as `encode_id` of codec.py.
  local function stored(id)
    local hex = string.match(id, '^[0-9a-f-]+$') and #id == 36
      and string.match(id, '^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$')
    if hex then
      return (string.gsub(string.gsub(hex, '%-', ''), '%x%x', function(byte) return string.char(tonumber(byte, 16)) end))
    end
    return (#id == 16 or string.byte(id) == 61) and '=' .. id or id
  end

  -- The id of a stored form.
  function G.plain(id)
    if #id ~= 16 then return (string.gsub(id, '^=', '')) end
    local hex = string.gsub(id, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
    return (string.gsub(hex, '^(%w%w%w%w%w%w%w%w)(%w%w%w%w)(%w%w%w%w)(%w%w%w%w)', '%1-%2-%3-%4-'))
  end

  -- Some fields of another record, nil if there is none. Ended records have no token.
  local function other(id)
    local got = redis.pcall('HMGET', root .. 'j:' .. stored(id), 's', 't', 'T', 'closed')
    if not got.err then return got[1] and {s = got[1], t = got[2], T = got[3] or nil, closed = got[4] or nil} end
    local text = redis.pcall('GET', root .. 'j:' .. stored(id))
    if type(text) ~= 'string' then return end
    return {s = string.match(text, '\ns=([^\n]*)') or '', t = string.match(text, '\nt=([^\n]*)'), closed = '1', ended = true}
  end

  -- Whether there is a record of an id.
  function G.exists(id) return other(id) and true or false end

  -- Whether another record has a live lease with a token.
  function G.leased(id, token)
    local found = other(id)
    return found and (found.T or '') ~= '' and found.T == token
  end

  -- Whether no group that the pairs of `group` in a text of labels name belongs to a closed batch, or `leased` holds.
  function G.joinable(labels, run, token)
    for name in string.gmatch('\31' .. labels, '\31:group=([^\31]+)') do
      local found = other(name)
      if found and found.t == 'batch' and found.closed then return G.leased(run, token) end
    end
    return true
  end

  -- Whether a record was made by a run of a parent that has one of these statuses (between bars), or no record.
  function G.is_orphan(fields, statuses)
    if fields.detached then return false end
    local parent = other(string.match('\31' .. (fields.l or ''), '\31:parent_id=([^\31]+)') or '')
    return not parent or string.find(statuses, '|' .. parent.s .. '|', 1, true) ~= nil
  end

  -- The values of fields of the record of a stored id, and whether it is in the form of ended records.
  local function read(id, ...)
    local got = redis.pcall('HMGET', root .. 'j:' .. id, ...)
    if not got.err then return got, false end
    local text, found = redis.pcall('GET', root .. 'j:' .. id), {}
    if type(text) ~= 'string' then return found, true end
    for i, name in ipairs({...}) do found[i] = string.match(text, '\n' .. name .. '=([^\n]*)') end
    return found, true
  end

  -- Why a member of a group did not do its work, as `blame_text` of `milepost.core.placement`: with the words for the status
  -- in which it ended, else `otherwise`; its error is cut after `most` bytes.
  function G.blame(id, ends, otherwise, most)
    local got = read(stored(id), 's', 't', 'e', 'failed_member')
    local status, job_type, failure = got[1], got[2] or '', got[3] or ''
    if not status then return 'job ' .. id .. ' was deleted' end
    if got[4] and got[3] then return failure end
    local how = ends[status] or otherwise
    if string.sub(how, -2) == ': ' then
      if #failure > most then
        local kept, after = string.sub(failure, 1, most), string.byte(failure, most + 1)
        if after >= 128 and after < 192 then kept = string.gsub(kept, '[\192-\255][\128-\191]*$', '') end
        failure = kept .. '\226\128\166'
      end
      how = failure == '' and string.sub(how, 1, -3) or how .. failure
    end
    return job_type .. ' ' .. how .. ' (job ' .. id .. ')'
  end

  -- The status of a record, nil if there is none, and whether it has ended.
  local function status_of(id)
    local got, is_packed = read(id, 's', 'z')
    return got[1] or nil, is_packed or (got[2] and got[2] ~= '')
  end

  local function is_ended(id)
    local status, ended = status_of(id)
    return status ~= nil and ended
  end

  local function awaited(fields)
    local found = {}
    for name in string.gmatch(fields.wait_groups or fields.l or '', '[^\31]+') do
      if not fields.wait_groups then name = string.match(name, '^:after=(.*)$') end
      if name then found[#found + 1] = name end
    end
    return found
  end

  local function is_open(group)
    local id = string.match(group, '^job:(.*)$')
    if not id then
      return redis.call('EXISTS', root .. 'm:' .. group .. ':') == 1
        or stops() and redis.call('HEXISTS', root .. 'sg', group) == 1
    end
    id = stored(id)
    if stops() and redis.call('HEXISTS', root .. 's', id) == 1 then return true end
    local status, ended = status_of(id)
    return status ~= nil and not ended
  end

  -- The id of a member that ended, or was removed, in one of these statuses (between bars).
  local function ended_in(group, statuses)
    local id = string.match(group, '^job:(.*)$')
    if id then
      local status, ended = status_of(stored(id))
      if ended and string.find(statuses, '|' .. (status or '') .. '|', 1, true) then return id end
    else
      for status in string.gmatch(statuses, '[^|]+') do
        local member = redis.call('SRANDMEMBER', root .. 'm:' .. group .. ':' .. status)
        if member then return G.plain(member) end
      end
    end
    local removed = redis.call('HGETALL', root .. 'g:' .. group)
    for i = 1, #removed, 2 do
      if string.find(statuses, '|' .. removed[i] .. '|', 1, true) then return removed[i + 1] end
    end
  end

  -- The first awaited group with an open member.
  function G.open_group(fields)
    for _, group in ipairs(awaited(fields)) do
      if is_open(group) then return group end
    end
  end

  -- The first awaited group with a member for which `ended_in` holds, and the id of that.
  function G.failed_member(fields, statuses)
    if fields.suspended or fields.on_failure == 'run' then return end
    for _, group in ipairs(awaited(fields)) do
      local id = ended_in(group, statuses)
      if id then return group, id end
    end
  end

  -- Whether every group that a text of labels names in pairs of `after` is known.
  function G.known(labels)
    for group in string.gmatch('\31' .. labels, '\31:after=([^\31]+)') do
      local kind, name = string.match(group, '^(%l+):(.*)$')
      local key = kind == 'group' and 'l::group=' .. name or 'j:' .. stored(name)
      if redis.call('EXISTS', root .. key) == 0 then return false end
    end
    return true
  end

  -- The groups of several members that a record with these labels belongs to: as a child (with `child_key`), or as another.
  function G.of(labels, child_key)
    local found = {}
    for pair in string.gmatch(labels or '', '[^\31]+') do
      local name, value = string.match(pair, '^:([^=]*)=(.*)$')
      if name == 'group' then
        found[#found + 1] = 'group:' .. value
      elseif name == 'parent_id' and child_key then
        found[#found + 1] = 'children:' .. value
      end
    end
    return found
  end

  -- The groups through which jobs may wait for a record, as `groups_of` of `milepost.core.placement`.
  local function groups_of(id, fields)
    local found = G.of(fields.l, fields.child_key)
    found[#found + 1] = 'job:' .. G.plain(id)
    return found
  end

  -- The stored id of the job whose run made a record, nil if there is none.
  function G.parent(fields)
    local id = fields.child_key and string.match('\31' .. (fields.l or ''), '\31:parent_id=([^\31]+)')
    return id and stored(id)
  end

  -- The first members of a group that ended in a status.
  function G.members(group, status, limit)
    return redis.call('SORT', root .. 'm:' .. group .. ':' .. status, 'ALPHA', 'LIMIT', 0, limit)
  end

  -- Whether a group is that of a batch which has not ended.
  local function is_of_open_batch(group)
    local name = string.match(group, '^group:(.*)$')
    local found = name and other(name)
    return found and found.t == 'batch' and not found.ended
  end

  -- What `has_open_waiter` found in this script.
  local open_waiters = {}

  -- Whether an open job waits for the members of a group, or it is that of an open batch.
  local function has_open_waiter(group)
    if is_of_open_batch(group) then return true end
    for _, waiter in ipairs(redis.call('ZRANGE', root .. 'l::after=' .. group, 0, -1)) do
      local status, ended = status_of(waiter)
      if status and not ended then return true end
    end
    return false
  end

  -- Whether an open job waits for a record, or for a group of it; as `Kin.awaited` of stores/retention.py.
  function G.is_awaited(id, fields)
    for _, group in ipairs(groups_of(id, fields)) do
      if open_waiters[group] == nil then open_waiters[group] = has_open_waiter(group) end
      if open_waiters[group] then return true end
    end
    return false
  end

  -- Count the retention of an ended record from another time on, so that it moves to the end of `z`, if it is not `taken` from it.
  function G.count_retention(id, since, taken)
    redis.call('HSET', root .. 'zk', id, string.format('%.0f', since))
    if not taken then redis.call('HINCRBY', root .. 'zs', id, 1) end
    redis.call('RPUSH', root .. 'z', id)
  end

  -- Whether a record has open children.
  function G.has_open_children(id)
    return redis.call('EXISTS', root .. 'm:children:' .. G.plain(id) .. ':') == 1
  end

  -- Move a record among the members of its groups; the arguments are those of its old and of its new state.
  function G.move(id, child_key, labels0, ended0, labels1, ended1)
    if ended0 == ended1 and labels0 == labels1 then return end
    for _, group in ipairs(G.of(labels0, child_key)) do redis.call('SREM', root .. 'm:' .. group .. ':' .. ended0, id) end
    for _, group in ipairs(G.of(labels1, child_key)) do redis.call('SADD', root .. 'm:' .. group .. ':' .. ended1, id) end
    local parent = child_key and ended0 == '' and string.match('\31' .. labels0, '\31:parent_id=([^\31]+)')
    if parent then
      parent = stored(parent)
      if not G.has_open_children(parent) and is_ended(parent) then
        G.count_retention(parent, this.clock)
      end
    end
  end

  -- Count the groups of a draining lease.
  function G.drain(names, by)
    for group in string.gmatch(names, '[^\31]+') do
      if redis.call('HINCRBY', root .. 'sg', group, by) <= 0 then redis.call('HDEL', root .. 'sg', group) end
    end
  end

  -- Whether a group is closed while jobs wait for it, or whether orphans are open.
  local function is_to_release(group)
    local id = string.match(group, '^orphans:(.*)$')
    if id then return redis.call('EXISTS', root .. 'm:children:' .. id .. ':') == 1 end
    return redis.call('HEXISTS', root .. 'held', group) == 1 and not is_open(group)
  end

  -- The groups among these to release; the sweep looks at them.
  function G.closed(names)
    local found = {}
    for _, group in ipairs(names) do
      if not found[group] and is_to_release(group) then
        redis.call('SADD', root .. 'closing', group)
        found[#found + 1] = group
        found[group] = true
      end
    end
    return found[1] and found
  end

  -- Whether a record names a group in its `after`, or a batch that has not ended is named so.
  local function needs_ends(group)
    return redis.call('EXISTS', root .. 'l::after=' .. group) == 1 or is_of_open_batch(group)
  end

  -- Delete what is kept of the removed members of a group, unless it is needed.
  function G.forget_ends(group)
    if not needs_ends(group) then redis.call('DEL', root .. 'g:' .. group) end
  end

  -- Keep the status of a removed record, if `needs_ends`.
  function G.keep_end(id, fields)
    for _, group in ipairs(groups_of(id, fields)) do
      if needs_ends(group) then redis.call('HSET', root .. 'g:' .. group, fields.s or '', G.plain(id)) end
    end
    if fields.t == 'batch' then G.forget_ends('group:' .. G.plain(id)) end
  end

  return G
end

-- name: member_counts
-- Count the members of groups.
-- ARGV[2]   the number of groups
-- ARGV[3..] the groups, then states of members
-- Reply     for each group the number of members in each state
local last, counts = 2 + tonumber(ARGV[2]), {}
for g = 3, last do
    local found = {}
    for i = last + 1, #ARGV do found[i - last] = redis.call('SCARD', root .. 'm:' .. ARGV[g] .. ':' .. ARGV[i]) end
    counts[g - 2] = found
end
return counts
