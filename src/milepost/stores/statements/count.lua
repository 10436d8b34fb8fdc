-- Count records.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the name of an index (empty: each list of a type and a status)
-- Reply    the number of the index, or the name `<type>:<status>` and the number of each list
if ARGV[2] ~= '' then return {ARGV[2], redis.call('ZCARD', root .. ARGV[2])} end
local reply = {}
for _, name in ipairs(redis.call('SMEMBERS', root .. 't')) do
  reply[#reply + 1] = name
  reply[#reply + 1] = redis.call('ZCARD', root .. 'i:' .. name)
end
return reply
