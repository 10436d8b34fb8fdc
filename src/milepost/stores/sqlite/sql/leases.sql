-- Live leases, and the draining leases of runs that are to stop.

-- name: lease_renew
-- Renew a live lease.
-- Values: until, id, token
UPDATE [jobs] SET lease = ? WHERE id = ? AND token = ?

-- name: lease_check
-- Check whether a lease is live.
-- Values: id, token
SELECT 1 FROM [jobs] WHERE id = ? AND token = ?

-- name: lease_turn_back
-- Move leases later than :bound back by :ahead, but not below :least: they were taken by a clock that was ahead.
UPDATE [jobs] SET lease = max(:least, lease - :ahead) WHERE lease > :bound

-- name: draining_renew
-- Renew a draining lease.
-- Values: until, id, token
UPDATE [draining] SET expires = ? WHERE id = ? AND token = ?

-- name: draining_check
-- Check whether a lease is draining.
-- Values: id, token
SELECT 1 FROM [draining] WHERE id = ? AND token = ?

-- name: draining_turn_back
-- Move draining leases later than :bound back by :ahead, but not below :least.
UPDATE [draining] SET expires = max(:least, expires - :ahead) WHERE expires > :bound

-- name: draining_get
-- Read the draining lease of an id.
-- Values: id
SELECT token, expires, key, slot, worker, groups FROM [draining] WHERE id = ?

-- name: draining_key
-- Check whether a draining lease has a unique key.
-- Values: key
SELECT 1 FROM [draining] WHERE key = ? AND key <> '' LIMIT 1

-- name: draining_put
-- Store a draining lease.
-- Values: id, token, expires, key, slot, worker, groups
INSERT OR REPLACE INTO [draining] VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: draining_group
-- Check whether a draining lease has a group among its groups, which are separated by the byte 31.
-- Values: group
SELECT 1 FROM [draining]
WHERE groups <> '' AND instr(char(31) || groups || char(31), char(31) || ? || char(31)) > 0 LIMIT 1

-- name: draining_delete
-- Delete a draining lease.
-- Values: id
DELETE FROM [draining] WHERE id = ?

-- name: draining_all
-- Read all draining leases.
SELECT id, token, expires FROM [draining]
