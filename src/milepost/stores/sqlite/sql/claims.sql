-- What workers claim: queues, their limits, and how a waiting worker is woken.

-- name: claim_promote
-- Make due records of a queue claimable, the longest waiting first, and return the names of their subqueues.
-- Values: queue, now, limit
UPDATE [jobs] SET scheduled = NULL, queue = coalesce(subqueue, queue) WHERE n IN (
    SELECT n FROM [jobs] INDEXED BY [jobs_scheduled] WHERE queue = ? AND scheduled <= ? ORDER BY scheduled LIMIT ?
) RETURNING subqueue

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
-- Count the leases of each slot in [:slot, :end), live and draining.
SELECT slot, count(*) FROM [jobs] INDEXED BY [jobs_slot] WHERE slot >= :slot AND slot < :end GROUP BY slot
UNION ALL SELECT slot, count(*) FROM [draining] WHERE slot >= :slot AND slot < :end GROUP BY slot

-- name: held_slots
-- Count the leases of each slot, live and draining.
SELECT slot, count(*) FROM [jobs] INDEXED BY [jobs_slot] WHERE slot IS NOT NULL GROUP BY slot
UNION ALL SELECT slot, count(*) FROM [draining] GROUP BY slot

-- name: claimable_jobs
-- Count the claimable records of limit keys with a setting, by the name under which they are claimed. The names are found one
-- after another in the index.
WITH RECURSIVE [names] (name) AS (
    SELECT min(queue) FROM [jobs] INDEXED BY [jobs_claimable] WHERE queue IS NOT NULL AND scheduled IS NULL
    UNION ALL
    SELECT (
        SELECT min(queue) FROM [jobs] INDEXED BY [jobs_claimable] WHERE queue > [names].name AND scheduled IS NULL
    ) FROM [names] WHERE [names].name IS NOT NULL
), [named] (name, slot) AS (
    SELECT name, CASE
        WHEN instr(name, char(31)) THEN substr(name, instr(name, char(31)) + 1) ELSE substr(name, 1, instr(name || '@', '@') - 1)
    END FROM [names] WHERE name IS NOT NULL
)
SELECT name, (
    SELECT count(*) FROM [jobs] INDEXED BY [jobs_claimable] WHERE queue = [named].name AND scheduled IS NULL
        AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].id = [jobs].id)
        AND NOT EXISTS (SELECT 1 FROM [draining] WHERE [draining].key = [jobs].unique_key AND [draining].key <> '')
) FROM [named] WHERE substr(slot, 1, instr(slot || char(31), char(31)) - 1) IN (SELECT key FROM [limits])

-- name: claim_put
-- Store the answer to a claim.
-- Values: worker, op, ids, until
INSERT OR REPLACE INTO [claims] VALUES (?, ?, ?, ?)

-- name: claim_repeated
-- Read the answer to an earlier claim.
-- Values: worker, op, now
SELECT ids FROM [claims] WHERE worker = ? AND op = ? AND until > ?

-- name: limits
-- Read the limits and pauses of limit keys.
SELECT key, most, paused, per_partition, rate, gate, opens FROM [limits]

-- name: limit_put
-- Store the setting of a limit key.
-- Values: key, most, paused, per_partition, rate, gate, opens
INSERT OR REPLACE INTO [limits] VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: limit_delete_empty
-- Delete the settings that change nothing any more.
-- Values: now
DELETE FROM [limits] WHERE most IS NULL AND NOT paused AND per_partition IS NULL AND rate IS NULL AND gate <= ?

-- name: limit_opens
-- Store when the rate of a limit key lets the next job start.
-- Values: opens, key
UPDATE [limits] SET opens = ? WHERE key = ?

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
