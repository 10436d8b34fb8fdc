-- Renew leases, live or stopping, or only look at them.
--
-- KEYS[1]  the prefix of the namespace
-- ARGV     the time seen; microseconds from now (empty: only look); id and token of each lease
-- Reply    the time; for each lease 2 live, 1 stopping, 0 lost
return {this.now, renew(2)}
