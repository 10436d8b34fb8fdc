-- Single records, and what belongs to them: labels, large values, tombstones.

-- name: record_get
-- Read one record.
-- Values: id
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] WHERE id = ?

-- name: key_owner
-- Find the newest record with a unique key. The order is that of arrival: the clock may have stepped back.
-- Values: key
SELECT id, status FROM [jobs] WHERE unique_key = ? ORDER BY n DESC LIMIT 1

-- name: record_insert
-- Insert a record.
-- Values: id, created, body, then the columns in the order of `rows.columns`
INSERT INTO [jobs] (
    id, created, body,
    type, status, stalled, queue, rank, scheduled, subqueue, deadline, lease, token, slot, worker, stale, ended, unique_key
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: record_update
-- Update a record and its index columns.
-- Values: body, the columns in the order of `rows.columns`, n
UPDATE [jobs] SET
    body = ?, type = ?, status = ?, stalled = ?, queue = ?, rank = ?, scheduled = ?, subqueue = ?, deadline = ?, lease = ?, token = ?,
    slot = ?, worker = ?, stale = ?, ended = ?, unique_key = ?
WHERE n = ?

-- name: record_update_body
-- Update the body of a record whose index columns stay the same.
-- Values: body, n
UPDATE [jobs] SET body = ? WHERE n = ?

-- name: record_delete
-- Delete a record.
-- Values: n
DELETE FROM [jobs] WHERE n = ?

-- name: label_put
-- Add a label to a record.
-- Values: pair, created, id, n
INSERT OR REPLACE INTO [labels] VALUES (?, ?, ?, ?)

-- name: label_delete
-- Delete a label of a record.
-- Values: pair, created, id
DELETE FROM [labels] WHERE pair = ? AND created = ? AND id = ?

-- name: large_get
-- Read the large values of a record.
-- Values: id
SELECT name, value FROM [large] WHERE id = ?

-- name: large_put
-- Store a large value of a record.
-- Values: id, name, value
INSERT OR REPLACE INTO [large] VALUES (?, ?, ?)

-- name: large_delete
-- Delete a large value of a record.
-- Values: id, name
DELETE FROM [large] WHERE id = ? AND name = ?

-- name: large_delete_all
-- Delete the large values of a removed record.
-- Values: id
DELETE FROM [large] WHERE id = ?

-- name: tombstone_get
-- Read the tombstone of an id, unless it has expired.
-- Values: id, now
SELECT kept FROM [tombstones] WHERE id = ? AND until > ?

-- name: tombstone_put
-- Store the tombstone of a removed record.
-- Values: id, kept, until
INSERT OR REPLACE INTO [tombstones] VALUES (?, ?, ?)

-- name: record_end
-- Read the status of a record and when it ended.
-- Values: id
SELECT status, ended FROM [jobs] WHERE id = ?

-- name: label_check
-- Check whether any record has a label.
-- Values: pair
SELECT 1 FROM [labels] WHERE pair = ? LIMIT 1
