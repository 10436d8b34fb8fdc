-- Read the stopping leases, those first that run out first.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen
-- Reply    id, token and time of expiry of each
local reply, n = {}, 0
local ids = redis.call('ZRANGE', root .. 'sx', 0, -1, 'WITHSCORES')
for i = 1, #ids, 2 do
  reply[n + 1], reply[n + 2] = ids[i], string.match(redis.call('HGET', root .. 's', ids[i]) or '', '^%Z*')
  reply[n + 3] = ids[i + 1]
  n = n + 3
end
return reply
