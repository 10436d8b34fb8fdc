-- The feed of all jobs, and the event list of each job.
-- `keep` is 0 for an event that only the feed has, 1 for an event in the bounded list of its job, 2 for an event that its
-- job always keeps.

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
