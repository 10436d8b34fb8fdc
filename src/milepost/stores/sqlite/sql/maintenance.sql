-- The sweep, which finds what is due, the purge, which deletes what has expired, and the statistics of ended jobs by minute
-- and hour (`core/rollups.py`), which the sweep closes. `hourly` is 1 for hours, 0 for minutes.

-- name: sweep_lease
-- Read records whose lease has expired.
-- Values: now, limit
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_lease]
WHERE lease <= ? ORDER BY lease, id LIMIT ?

-- name: sweep_sibling_leases
-- Count the live leases of each worker.
SELECT worker, count(*) FROM [jobs] INDEXED BY [jobs_lease] WHERE lease IS NOT NULL GROUP BY worker

-- name: sweep_deadline
-- Read records whose start deadline has passed.
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_deadline]
WHERE deadline <= :now ORDER BY deadline, id LIMIT :limit

-- name: sweep_stale
-- Read records that were not updated for too long. Those of another task queue follow only at :others_from.
-- :waits is the text in the body of a job of any task queue, :own that in the body of a job of this one.
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_stale]
WHERE stale <= :now AND (
    stale <= :others_from
    OR instr(char(10) || body || char(10), :waits) = 0
    OR instr(char(10) || body || char(10), :own) > 0
) ORDER BY stale, id LIMIT :limit

-- name: sweep_draining
-- Read expired draining leases.
-- Values: now, limit
SELECT id, token FROM [draining] WHERE expires <= ? LIMIT ?

-- name: purge_ended
-- Read which records have been kept since before a time.
-- Values: before, limit
SELECT id FROM [jobs] INDEXED BY [jobs_ended] WHERE ended < ? ORDER BY ended, id LIMIT ?

-- name: kin
-- Read what a purge asks about a record, see `stores/retention.py`.
SELECT j.ended, j.body, (
    SELECT CASE WHEN min(m.ended) = '' THEN :open ELSE max(coalesce(c.ended, :open)) END
    FROM [members] AS m JOIN [jobs] AS c ON c.id = m.id WHERE m.grp = 'children:' || j.id
) FROM [jobs] AS j WHERE j.id = :id

-- name: is_awaited
-- Check whether the `after` of an open record names a group, or an open batch is named so.
SELECT 1 FROM [labels] AS o JOIN [jobs] AS w ON w.n = o.n WHERE o.pair = ':after=' || :group AND w.ended IS NULL
UNION ALL
SELECT 1 FROM [jobs]
WHERE :group LIKE 'group:%' AND id = substr(:group, 7) AND type = 'batch' AND ended IS NULL
LIMIT 1

-- name: count_retention
-- Count the retention of an ended record from another time on.
-- Values: since, id
UPDATE [jobs] SET ended = ? WHERE id = ? AND ended IS NOT NULL

-- name: purge_tombstones
-- Delete expired tombstones.
-- Values: now
DELETE FROM [tombstones] WHERE until <= ?

-- name: purge_claims
-- Delete answers to claims that no worker will repeat.
-- Values: now
DELETE FROM [claims] WHERE until <= ?

-- name: purge_wakes
-- Delete wake-ups that no worker has taken.
-- Values: before
DELETE FROM [wakes] WHERE at < ?

-- name: purge_kv
-- Delete expired values.
-- Values: now
DELETE FROM [kv] WHERE until <= ?

-- name: purge_counters
-- Delete counters without records.
DELETE FROM [counters] WHERE count <= 0

-- name: open_ends_get
-- Read the counts of minutes that are not closed.
-- Values: from, until
SELECT minute, series, metric, count FROM [open_ends] WHERE minute >= ? AND minute < ?

-- name: open_ends_add
-- Add to the number of ends in a minute.
-- Values: minute, series, metric, count
INSERT INTO [open_ends] VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count

-- name: open_ends_delete
-- Delete the counts of closed minutes.
-- Values: until
DELETE FROM [open_ends] WHERE minute < ?

-- name: rollups_get
-- Read the texts of minutes or hours.
-- Values: hourly, from
SELECT number, body FROM [rollups] WHERE hourly = ? AND number >= ?

-- name: rollups_one
-- Read the text of one minute or hour.
-- Values: hourly, number
SELECT body FROM [rollups] WHERE hourly = ? AND number = ?

-- name: rollups_put
-- Store the text of a minute or hour.
-- Values: hourly, number, body
INSERT OR REPLACE INTO [rollups] VALUES (?, ?, ?)

-- name: rollups_delete
-- Delete a minute or hour.
-- Values: hourly, number
DELETE FROM [rollups] WHERE hourly = ? AND number = ?

-- name: rollups_sizes
-- Read the sizes of the texts, in bytes.
-- Values: hourly
SELECT number, length(CAST(body AS BLOB)) FROM [rollups] WHERE hourly = ?
