-- Limit or pause a queue, or take its setting away; an idle worker looks again.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the queue; its setting `<limit or empty>:<1 paused, 0 not>`, or empty for none
-- Reply    nothing
local indexes = open_indexes()
if ARGV[3] == '' then
  redis.call('HDEL', root .. 'limits', ARGV[2])
else
  redis.call('HSET', root .. 'limits', ARGV[2], ARGV[3])
end
indexes.announce_one(ARGV[2])
indexes.flush()
return false
