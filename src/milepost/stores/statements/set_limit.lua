-- Limit or pause a queue, or take its setting away; an idle worker looks again.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the queue; its setting `<limit or empty>:<1 paused, 0 not>`, or empty for none
-- Reply    nothing
if ARGV[3] == '' then
  call('HDEL', root .. 'limits', ARGV[2])
else
  call('HSET', root .. 'limits', ARGV[2], ARGV[3])
end
announce_one(ARGV[2])
flush()
return false
