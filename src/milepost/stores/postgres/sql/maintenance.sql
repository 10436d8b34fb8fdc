-- The sweep, which finds what is due, the purge, the rollups, and the key-value store.

-- name: short_plans
-- Start no compiler and no processes for the statements of a sweep, which would take longer than these statements do. Its changes
-- of counts are joined with each other, without an index, unlike what writes join (`patience`).
SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
    set_config('enable_hashjoin', 'on', true)

-- name: sweep_leases
-- Read records whose lease has expired. A lease under an open transaction is left, however old.
WITH due AS (SELECT * FROM [leases] WHERE expires <= %(until)s ORDER BY expires, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
SELECT (SELECT count(*) FROM [leases] AS o WHERE o.worker = l.worker),
    --@columns
FROM due AS l JOIN [jobs] AS j ON j.id = l.id ORDER BY l.expires, l.id

-- name: sweep_deadline
-- Read records whose start deadline has passed.
SELECT
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id
WHERE j.deadline <= %(now)s ORDER BY j.deadline, j.id LIMIT %(limit)s

-- name: sweep_stale
-- Read records that were not updated for too long. Those of another task queue follow only at `others_from`.
-- `waits` is the text in the body of a job of any task queue, `own` that in the body of a job of this one.
SELECT
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id
WHERE j.stale <= %(now)s AND (
    j.stale <= %(others_from)s
    OR strpos(E'\n' || j.body || E'\n', %(waits)s) = 0
    OR strpos(E'\n' || j.body || E'\n', %(own)s::text) > 0
) ORDER BY j.stale, j.id LIMIT %(limit)s

-- name: sweep_draining
-- Read expired draining leases, each with its job if there is one.
SELECT s.id, s.token,
    --@columns
FROM (
    SELECT * FROM [draining] WHERE expires <= %(until)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS s
LEFT JOIN [jobs] AS j ON j.id = s.id LEFT JOIN [leases] AS l ON l.id = s.id

-- name: fold_counts
-- Add the changes of counts, and of the ledger of usage, to their sums. New sums of a day beyond the first :rows are added
-- up by type.
WITH d AS (DELETE FROM [deltas] RETURNING *),
    c AS (SELECT kind, name, status, sum(n) AS n FROM d GROUP BY kind, name, status HAVING sum(n) <> 0),
    k AS (
        SELECT kind, (SELECT count(*) FROM [tallies] AS t WHERE t.kind = c.kind) AS known
        FROM c WHERE kind >= 'day:' AND kind < 'day;' GROUP BY kind
    ),
    f AS (
        SELECT kind, name, status, row_number() OVER (PARTITION BY kind ORDER BY name, status) + known > %(rows)s AS beyond
        FROM c JOIN k USING (kind) WHERE NOT EXISTS (
            SELECT FROM [tallies] AS t WHERE (t.kind, t.name, t.status) = (c.kind, c.name, c.status)
        )
    ),
    m AS (
        SELECT kind, CASE WHEN f.beyond THEN split_part(name, E'\x1f', 1) || E'\x1f*' ELSE name END AS name, status, n
        FROM c LEFT JOIN f USING (kind, name, status)
    ),
    s AS (SELECT kind, name, status, least(sum(n), 9000000000000000000) AS n FROM m GROUP BY kind, name, status)
INSERT INTO [tallies] AS t SELECT * FROM s ORDER BY kind, name, status
ON CONFLICT (kind, name, status) DO UPDATE SET n = least(t.n::numeric + excluded.n, 9000000000000000000)

-- name: purge_ended
-- Find and lock the records that have been kept since before a time, except those that another transaction has locked.
SELECT id FROM [jobs] WHERE ended < %(bound)s ORDER BY ended, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED

-- name: lock_ended
-- Lock the ended records among some, except those that another transaction has locked.
SELECT id FROM [jobs] WHERE id = ANY(%(ids)s) AND ended IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED

-- name: kin
-- Read what a purge asks about records, see `stores/retention.py`.
SELECT j.id, j.ended, j.body, (
    SELECT max(coalesce(c.ended, %(open)s::bigint))
    FROM [members] AS m JOIN [jobs] AS c ON c.id = m.id WHERE m.grp = 'children:' || j.id
) FROM [jobs] AS j WHERE j.id = ANY(%(ids)s)

-- name: awaited_groups
-- Find the groups that the `after` of an open record names, or that belong to an open batch.
SELECT g.grp FROM unnest(%(groups)s::text[]) AS g (grp)
WHERE EXISTS (SELECT FROM [labels] AS o JOIN [jobs] AS w ON w.id = o.id WHERE o.pair = ':after=' || g.grp AND w.ended IS NULL)
    OR starts_with(g.grp, 'group:') AND EXISTS (
        SELECT FROM [jobs] AS b WHERE b.id = substr(g.grp, 7) AND b.type = 'batch' AND b.ended IS NULL
    )

-- name: members_of
-- Read the first members of a group.
SELECT id FROM [members] WHERE grp = %(group)s ORDER BY id LIMIT %(limit)s

-- name: count_retention
-- Count the retention of ended records from other times on.
UPDATE [jobs] AS j SET ended = k.since FROM unnest(%(ids)s::text[], %(since)s::bigint[]) AS k (id, since)
WHERE j.id = k.id AND j.ended IS NOT NULL

-- name: parents_of_open
-- Find which records have open children.
SELECT id FROM unnest(%(ids)s::text[]) AS w (id)
WHERE EXISTS (SELECT FROM [members] AS m WHERE m.grp = 'children:' || w.id AND m.ended = '')

-- name: forget
-- Delete expired values, old days of usage, what descendants of removed records spent, and what only repeated requests
-- would need.
WITH t AS (DELETE FROM [tombstones] WHERE until <= %(now)s),
    c AS (DELETE FROM [claims] WHERE until <= %(now)s),
    w AS (DELETE FROM [wakes] WHERE at < %(now)s - 60000000),
    n AS (DELETE FROM [tallies] WHERE n = 0),
    d AS (DELETE FROM [tallies] WHERE kind >= 'day:' AND kind < %(first_day)s),
    r AS (DELETE FROM [tallies] AS t WHERE kind >= 'tree:' AND kind < 'tree;' AND NOT EXISTS (
        SELECT FROM [jobs] AS j WHERE j.id = substr(t.kind, 6)
    )),
    g AS (DELETE FROM [gates] WHERE until <= %(now)s)
DELETE FROM [kv] WHERE until <= %(now)s

-- name: trim_bound
-- Find the last of the next events to leave the feed, the latest transaction of these that this server has seen, and the next
-- transaction. An event leaves when it is too old, or when more than `kept` came after it; the newest never leaves.
SELECT max(e.seq), max(e.xid::text::bigint) FILTER (WHERE e.xid < pg_snapshot_xmax(pg_current_snapshot())),
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint
FROM (
    SELECT seq, xid, at FROM [events]
    WHERE seq > (SELECT value FROM [state] WHERE name = 'trimmed') ORDER BY seq LIMIT %(batch)s
) AS e, (SELECT max(seq) AS seq FROM [events]) AS newest
WHERE e.seq < newest.seq AND (e.seq <= newest.seq - %(kept)s OR e.at < %(bound)s)

-- name: trim
-- Delete events that left the feed and are in no job's list.
DELETE FROM [events] WHERE keep = 0 AND seq > %(after)s AND seq <= %(until)s

-- name: open_ends_take
-- Take the counts of minutes that are over.
WITH gone AS (DELETE FROM [open_ends] WHERE minute < %(current)s RETURNING *)
SELECT minute, series, metric, sum(count)::bigint FROM gone GROUP BY minute, series, metric

-- name: open_ends_get
-- Read the counts of minutes that are not closed.
SELECT minute, series, metric, sum(count)::bigint FROM [open_ends] WHERE minute >= %(since)s GROUP BY minute, series, metric

-- name: rollups_get
-- Read the texts of minutes or hours.
SELECT number, body FROM [rollups] WHERE hourly = %(hourly)s AND number >= %(since)s

-- name: rollups_some
-- Read the texts of some minutes or hours.
SELECT number, body FROM [rollups] WHERE hourly = %(hourly)s AND number = ANY(%(numbers)s)

-- name: rollups_put
-- Store the texts of minutes or hours.
INSERT INTO [rollups] SELECT %(hourly)s, * FROM unnest(%(numbers)s::bigint[], %(bodies)s::text[])
ON CONFLICT (hourly, number) DO UPDATE SET body = excluded.body

-- name: rollups_sizes
-- Read the sizes of the texts, in bytes.
SELECT number, octet_length(body) FROM [rollups] WHERE hourly = %(hourly)s

-- name: rollups_delete
-- Delete minutes or hours.
DELETE FROM [rollups] WHERE hourly = %(hourly)s AND number = ANY(%(numbers)s)

-- name: kv_get
-- Read a value that has not expired.
SELECT key, value, version FROM [kv] WHERE key = %(key)s AND (until IS NULL OR until > [now](%(seen)s, %(lead)s))

-- name: kv_scan
-- Read values that have not expired, ordered by key.
SELECT key, value, version FROM [kv]
WHERE key >= %(prefix)s AND key > %(after)s AND starts_with(key, %(prefix)s)
    AND (until IS NULL OR until > [now](%(seen)s, %(lead)s))
ORDER BY key LIMIT %(limit)s

-- name: kv_lock
-- Let one transaction at a time set a value.
SELECT pg_advisory_xact_lock(hashtextextended('[kv]' || %(key)s, 3))

-- name: kv_lock_all
-- Let no other transaction set these values.
SELECT pg_advisory_xact_lock(hashtextextended('[kv]' || key, 3)) FROM (
    SELECT key FROM unnest(%(keys)s::text[]) AS k (key) ORDER BY key
) AS k

-- name: kv_read_all
-- Read values, and let no other transaction delete them.
SELECT key, value FROM [kv]
WHERE key = ANY(%(keys)s) AND (until IS NULL OR until > [now](%(seen)s, %(lead)s)) ORDER BY key FOR UPDATE

-- name: kv_set_all
-- Set values, without an expiry.
INSERT INTO [kv] AS k (key, value, version)
SELECT key, value, nextval('[kv_version]') FROM unnest(%(key)s::text[], %(value)s::text[]) AS new (key, value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, until = NULL

-- name: kv_delete_all
-- Delete values.
DELETE FROM [kv] WHERE key = ANY(%(keys)s)

-- name: kv_put
-- Set a value, if its version is the expected one: 0 if it does not exist, NULL for any. Versions are never used again.
INSERT INTO [kv] AS k
SELECT %(key)s, %(value)s, nextval('[kv_version]'), [now](%(seen)s, %(lead)s) + %(ttl)s::bigint
WHERE %(version)s::bigint IS NULL OR %(version)s = coalesce((
    SELECT o.version FROM [kv] AS o WHERE o.key = %(key)s AND (o.until IS NULL OR o.until > [now](%(seen)s, %(lead)s))
), 0)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, until = excluded.until
RETURNING version

-- name: kv_delete
-- Delete a value, and say whether it had not expired.
DELETE FROM [kv] WHERE key = %(key)s RETURNING until IS NULL OR until > [now](%(seen)s, %(lead)s)

-- name: health
-- Read what the health check reports. Only transactions of this database keep its dead rows. Those of other roles are not
-- shown to a role without a right, whose name is read.
SELECT version(), current_setting('server_version_num')::int, current_setting('fsync'),
    current_setting('synchronous_commit'), current_setting('full_page_writes'), pg_is_in_recovery(),
    current_setting('server_encoding'),
    (SELECT value FROM [state] WHERE name = 'layout'),
    pg_total_relation_size('[jobs]') + pg_total_relation_size('[events]'),
    (SELECT extract(epoch FROM clock_timestamp() - min(began))::bigint FROM (
        SELECT xact_start FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
    ) AS t (began)),
    CASE WHEN NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN quote_ident(current_user) END,
    (SELECT sum(n_dead_tup)::bigint FROM pg_stat_user_tables WHERE schemaname = %(schema)s),
    (SELECT extract(epoch FROM clock_timestamp() - max(last_autovacuum))::bigint FROM pg_stat_user_tables
     WHERE schemaname = %(schema)s)
