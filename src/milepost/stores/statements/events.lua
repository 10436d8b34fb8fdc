-- Read the kept events of one record.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the id
-- Reply    the events in no order, each as version, kind, time and fields, separated by NUL
local fields, form = read(ARGV[2])
if not form then return {} end
local events = redis.call('LRANGE', root .. 'e:' .. ARGV[2], 0, -1)
for name, value in pairs(fields) do
  if string.byte(name) == 33 then events[#events + 1] = string.sub(name, 2) .. '\0' .. value end
end
return events
