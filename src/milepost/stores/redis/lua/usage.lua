-- The ledger of usage, see `milepost.core.ledger`.

-- name: usage
-- Read books of the ledger.
-- ARGV[2..] the names of the books
-- Reply     for each a flat hash: series, byte 31, name -> amount in millionths
local found = {}
for i = 2, #ARGV do found[i - 1] = redis.call('HGETALL', root .. 'u:' .. ARGV[i]) end
return found
