-- Read the version of the layout; an empty namespace gets the caller's.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the version that the caller writes
-- Reply    the version of the namespace
local found = redis.call('GET', root .. 'layout')
if not found then
  redis.call('SET', root .. 'layout', ARGV[2])
  found = ARGV[2]
end
return found
