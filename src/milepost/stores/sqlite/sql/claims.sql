-- What workers claim: queues, their limits, and how a waiting worker is woken.

-- name: claim_promote
-- Make due records of a queue claimable, the longest waiting first.
-- Values: queue, now, limit
UPDATE [jobs] SET scheduled = NULL WHERE n IN (
    SELECT n FROM [jobs] INDEXED BY [jobs_scheduled] WHERE queue = ? AND scheduled <= ? ORDER BY scheduled LIMIT ?
)

-- name: claim_next
-- Read the first claimable records of a queue after the position (:rank, :created, :id).
SELECT n, id, created, type, status, lease, token, queue, unique_key, body, rank
FROM [jobs] INDEXED BY [jobs_claimable]
WHERE queue = :queue AND scheduled IS NULL AND (rank, created, id) > (:rank, :created, :id)
    AND (deadline IS NULL OR deadline > :now)
    AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].id = [jobs].id)
    AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].key = [jobs].unique_key AND [draining].key <> '')
ORDER BY rank, created, id LIMIT :most

-- name: claim_next_due
-- Find when the next scheduled record of a queue is due. The largest number stands for a held record.
-- Values: queue
SELECT scheduled FROM [jobs] INDEXED BY [jobs_scheduled]
WHERE queue = ? AND scheduled < 9223372036854775807
    AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].id = [jobs].id)
    AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].key = [jobs].unique_key AND [draining].key <> '')
ORDER BY scheduled LIMIT 1

-- name: claim_held
-- Count the leases of a slot, live and draining.
SELECT (SELECT count(*) FROM [jobs] WHERE slot = :slot) + (SELECT count(*) FROM [draining] WHERE slot = :slot)

-- name: claim_put
-- Store the answer to a claim.
-- Values: worker, op, ids, until
INSERT OR REPLACE INTO [claims] VALUES (?, ?, ?, ?)

-- name: claim_repeated
-- Read the answer to an earlier claim.
-- Values: worker, op, now
SELECT ids FROM [claims] WHERE worker = ? AND op = ? AND until > ?

-- name: limits
-- Read the limits and pauses of queues.
SELECT queue, most, paused FROM [limits]

-- name: limit_put
-- Limit or pause a queue.
-- Values: queue, most, paused
INSERT OR REPLACE INTO [limits] VALUES (?, ?, ?)

-- name: limit_delete
-- Delete the limit and the pause of a queue.
-- Values: queue
DELETE FROM [limits] WHERE queue = ?

-- name: wake_check
-- Check whether a worker is to wake.
-- Values: worker
SELECT 1 FROM [wakes] WHERE worker = ?

-- name: wake_put
-- Wake a worker.
-- Values: worker, at
INSERT OR REPLACE INTO [wakes] VALUES (?, ?)

-- name: wake_take
-- Delete the wake-up of a worker.
-- Values: worker
DELETE FROM [wakes] WHERE worker = ?
