-- Live leases, and the draining leases of runs that are to stop.

-- name: leases
-- Prelude of scripts that renew leases. `renew(first)` reads ARGV from `first` on: microseconds from now (empty: only
-- check), then id and token of each lease. It returns for each 2 live, 1 draining, 0 lost.
local function renew(first)
  local expires = ARGV[first] ~= '' and string.format('%.0f', this.clock + ARGV[first])
  local answers, live, stopping, n, m = {}, {}, {}, 0, 0
  for i = first + 1, #ARGV, 2 do
    local id, token = ARGV[i], ARGV[i + 1]
    local answer = 0
    if redis.pcall('HGET', root .. 'j:' .. id, 'T') == token then
      answer = 2
      if expires then
        redis.call('HSET', root .. 'j:' .. id, 'L', expires)
        live[n + 1], live[n + 2] = expires, id
        n = n + 2
      end
    elseif stops() then
      local stop = redis.call('HGET', root .. 's', id)
      if stop and string.match(stop, '^%Z*') == token then
        answer = 1
        if expires then
          stopping[m + 1], stopping[m + 2] = expires, id
          m = m + 2
        end
      end
    end
    answers[#answers + 1] = answer
    if n > 2000 then
      redis.call('ZADD', root .. 'lease', unpack(live))
      live, n = {}, 0
    end
    if m > 2000 then
      redis.call('ZADD', root .. 'sx', unpack(stopping))
      stopping, m = {}, 0
    end
  end
  if n > 0 then redis.call('ZADD', root .. 'lease', unpack(live)) end
  if m > 0 then redis.call('ZADD', root .. 'sx', unpack(stopping)) end
  return answers
end

-- name: renew
-- Renew live and draining leases, or only check them.
-- ARGV[2]   microseconds from now (empty: only check)
-- ARGV[3..] id and token of each lease
-- Reply     the time; for each lease 2 live, 1 draining, 0 lost
return {this.now, renew(2)}

-- name: claimable_jobs
-- Count the claimable jobs of the limit keys with a setting.
-- Reply     key and number of each
local reply, found = {}, {}
local keys = redis.call('HKEYS', root .. 'limits')
local function count(key, name) found[key] = (found[key] or 0) + redis.call('ZCARD', root .. 'q:' .. name) end
for _, key in ipairs(keys) do
  count(key, key)
  for _, queue in ipairs(redis.call('SMEMBERS', root .. 'plain:' .. key)) do count(key, queue) end
  for _, queue in ipairs(redis.call('SMEMBERS', root .. 'queues:' .. key)) do
    for _, name in ipairs(redis.call('ZRANGE', root .. 'ring:' .. queue .. '\31' .. key, 0, -1)) do count(key, name) end
  end
end
for _, slot in ipairs(redis.call('SMEMBERS', root .. 'fulls')) do
  local key = string.match(slot, '^[^\31]*')
  if found[key] then
    for _, name in ipairs(redis.call('SMEMBERS', root .. 'full:' .. slot)) do count(key, name) end
  end
end
for i = 1, #keys do reply[2 * i - 1], reply[2 * i] = keys[i], found[keys[i]] end
return reply

-- name: draining_leases
-- Read the draining leases, ordered by expiry.
-- Reply     id, token and time of expiry of each
local reply, n = {}, 0
local ids = redis.call('ZRANGE', root .. 'sx', 0, -1, 'WITHSCORES')
for i = 1, #ids, 2 do
  reply[n + 1], reply[n + 2] = ids[i], string.match(redis.call('HGET', root .. 's', ids[i]) or '', '^%Z*')
  reply[n + 3] = ids[i + 1]
  n = n + 3
end
return reply
