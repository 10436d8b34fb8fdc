-- Read the clock.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen
-- Reply    the time, in microseconds since 1970
return this.now
