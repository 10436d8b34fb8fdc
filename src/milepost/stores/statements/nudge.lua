-- Wake the worker of that name.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; the worker
-- Reply    nothing
woken[ARGV[2]] = true
flush()
return false
