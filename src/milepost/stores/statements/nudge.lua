-- Wake the worker of that name.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the worker
-- Reply    nothing
local indexes = open_indexes()
indexes.woken[ARGV[2]] = true
indexes.flush()
return false
