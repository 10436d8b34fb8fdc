-- Single records, and what belongs to them: labels, large values, tombstones, live and draining leases, and events.
-- `keep` is 0 for an event that only the feed has, 1 for an event in the bounded list of its job, 2 for an event that its
-- job always keeps.

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

-- name: newest_event
-- Read the newest event: the end of the feed, and a time that the clock does not fall behind.
SELECT seq, at FROM [events] ORDER BY seq DESC LIMIT 1

-- name: event_put
-- Append an event to the feed.
-- Values: id, version, kind, at, keep, body
INSERT INTO [events] (id, version, kind, at, keep, body) VALUES (?, ?, ?, ?, ?, ?)

-- name: events
-- Read the kept events of a job, oldest first.
SELECT version, kind, at, body FROM (
    SELECT version, kind, at, body FROM [events] INDEXED BY [events_kept]
    WHERE id = :id AND keep = 1 AND keep > 0 AND version > :after
    UNION ALL
    SELECT version, kind, at, body FROM [events] INDEXED BY [events_kept]
    WHERE id = :id AND keep = 2 AND keep > 0 AND version > :after
) ORDER BY version LIMIT :limit

-- name: event_list_bound
-- Find the newest event beyond the bound of a job's list.
-- Values: id, how many the list keeps
SELECT version FROM [events] INDEXED BY [events_kept]
WHERE id = ? AND keep = 1 AND keep > 0 ORDER BY version DESC LIMIT 1 OFFSET ?

-- name: event_unlist_old
-- Keep events that left the list of their job only as long as the feed does.
-- Values: id, version
UPDATE [events] SET keep = 0 WHERE id = ? AND keep = 1 AND keep > 0 AND version <= ?

-- name: event_unlist_all
-- Keep the events of a removed record only as long as the feed does.
-- Values: id
UPDATE [events] SET keep = 0 WHERE id = ? AND keep > 0

-- name: event_delete_old
-- Delete events that left both the list of their job and the feed.
-- Values: id, version, trimmed
DELETE FROM [events] WHERE id = ? AND keep = 1 AND keep > 0 AND version <= ? AND seq <= ?

-- name: event_delete_all
-- Delete the events of a removed record that left the feed.
-- Values: id, trimmed
DELETE FROM [events] WHERE id = ? AND keep > 0 AND seq <= ?

-- name: feed
-- Read the events of all jobs, oldest first.
-- Values: after, limit
SELECT seq, id, version, kind, at, body FROM [events] WHERE seq > ? ORDER BY seq LIMIT ?

-- name: feed_old
-- Find the last of the next events that are too old for the feed, never the newest event.
SELECT max(seq) FROM [events]
WHERE seq > :begin AND seq <= :until AND at < :bound AND seq < (SELECT max(seq) FROM [events])

-- name: feed_trim
-- Delete events that only the feed has.
-- Values: after, until (included)
DELETE FROM [events] WHERE seq > ? AND seq <= ? AND keep = 0
