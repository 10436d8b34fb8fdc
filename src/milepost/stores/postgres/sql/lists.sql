-- Lists and counts. A list starts after the position (created, id), newest first, and ends at `since`.
-- `types`, `statuses` and `labels` are arrays, or NULL for any.

-- name: list_filters
-- Part of every list.
    AND (j.created, j.id) < (%(created)s, %(id)s) AND j.created >= %(since)s
    AND (NOT %(stalled)s OR j.stalled)
    AND (%(labels)s::text[] IS NULL OR NOT EXISTS (
        SELECT FROM unnest(%(labels)s::text[]) AS w (pair) WHERE NOT EXISTS (
            SELECT FROM [labels] AS o WHERE o.pair = w.pair AND o.created = j.created AND o.id = j.id
        )
    ))

-- name: type_filters
-- Part of lists that are not of one type and status.
    AND (%(types)s::text[] IS NULL OR j.type = ANY(%(types)s))
    AND (%(statuses)s::text[] IS NULL OR j.status = ANY(%(statuses)s))

-- name: listed
-- Part of lists by type and status: the pairs that have records.
    SELECT DISTINCT name AS type, status FROM [counts] WHERE kind = 'list' AND n > 0
    AND (%(types)s::text[] IS NULL OR name = ANY(%(types)s))
    AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s))

-- name: select_created
-- Read the newest matching records.
SELECT
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id
WHERE true
    --@type_filters
    --@list_filters
ORDER BY j.created DESC, j.id DESC LIMIT %(limit)s

-- name: select_listed
-- Read the newest matching records of some types and statuses, from one index per pair of these.
WITH pairs AS (
    --@listed
)
SELECT
    --@columns
FROM pairs AS p CROSS JOIN LATERAL (
    SELECT j.* FROM [jobs] AS j WHERE j.type = p.type AND j.status = p.status
        --@list_filters
    ORDER BY j.created DESC, j.id DESC LIMIT %(limit)s
) AS j LEFT JOIN [leases] AS l ON l.id = j.id
ORDER BY j.created DESC, j.id DESC LIMIT %(limit)s

-- name: select_labelled
-- Read the newest matching records with a label.
SELECT
    --@columns
FROM [labels] AS p JOIN [jobs] AS j ON j.id = p.id LEFT JOIN [leases] AS l ON l.id = j.id
WHERE p.pair = %(pair)s AND (p.created, p.id) < (%(created)s, %(id)s) AND p.created >= %(since)s
    --@type_filters
    --@list_filters
ORDER BY p.created DESC, p.id DESC LIMIT %(limit)s

-- name: select_stalled
-- Read the newest matching records that are stalled.
SELECT
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id
WHERE j.stalled
    --@type_filters
    --@list_filters
ORDER BY j.created DESC, j.id DESC LIMIT %(limit)s

-- name: oldest
-- Read the oldest records of a status.
WITH pairs AS (
    --@listed
)
SELECT
    --@columns
FROM pairs AS p CROSS JOIN LATERAL (
    SELECT j.* FROM [jobs] AS j WHERE j.type = p.type AND j.status = p.status ORDER BY j.created, j.id LIMIT %(limit)s
) AS j LEFT JOIN [leases] AS l ON l.id = j.id
ORDER BY j.created, j.id LIMIT %(limit)s

-- name: counts
-- Count the records by type and status.
SELECT name, status, n FROM [counts] WHERE kind = 'list' AND n > 0

-- name: count_labels
-- Count the records with each of some labels.
SELECT name, n FROM [counts] WHERE kind = 'label' AND name = ANY(%(pairs)s)

-- name: count_stalled
-- Count the stalled records.
SELECT n FROM [counts] WHERE kind = 'stalled'

-- name: events
-- Read the kept events of a job, oldest first.
SELECT version, kind, at, body FROM [events]
WHERE id = %(id)s AND keep > 0 AND version > %(after)s ORDER BY version LIMIT %(limit)s

-- name: feed_end
-- Read the end of the feed: the transactions whose events are visible now.
SELECT pg_current_snapshot()::text

-- name: feed
-- Read the events of all jobs that became visible after a position, in the order in which they were written: those of
-- transactions from `first` on, and of `unfinished` ones before it. With `until`, only what that snapshot sees.
WITH s AS (
    SELECT
        coalesce(%(until)s::pg_snapshot, pg_current_snapshot()) AS until,
        (SELECT value FROM [state] WHERE name = 'trimmed') AS trimmed,
        (SELECT value FROM [state] WHERE name = 'trimmed_xid') AS trimmed_xid
)
SELECT s.until::text, pg_snapshot_xmax(pg_current_snapshot())::text::bigint, s.trimmed, s.trimmed_xid,
    e.seq, e.xid::text::bigint, e.id, e.version, e.kind, e.at, e.body
FROM s LEFT JOIN LATERAL (
    SELECT * FROM [events] AS e
    WHERE (e.xid >= %(first)s::text::xid8 AND e.seq > s.trimmed OR e.xid = ANY(%(unfinished)s::text[]::xid8[]))
        AND e.seq > %(after)s AND pg_visible_in_snapshot(e.xid, s.until)
    ORDER BY e.seq LIMIT %(limit)s
) AS e ON true
ORDER BY e.seq

-- name: usage
-- Read books of the ledger of usage.
SELECT kind, name, status, least(sum(n), 9000000000000000000)::bigint
FROM (SELECT * FROM [tallies] UNION ALL SELECT * FROM [deltas]) AS added
WHERE kind = ANY(%(books)s) GROUP BY kind, name, status
