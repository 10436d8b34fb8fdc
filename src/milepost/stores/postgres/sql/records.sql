-- Reading and writing records with what belongs to them. Each statement is for a whole batch, but those of checkpoints that
-- commit with a transaction of a caller, who may keep it open for minutes.

-- name: begin
-- Begin a write.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE

-- name: patience
-- Bound the wait for a lock, in milliseconds, until the transaction ends, and let the planner use indexes. A write names the
-- records that it needs. The statistics of tables that change as fast as a queue are out of date, and with them the planner
-- would read whole tables. So one plan suits all values; to plan a claim each time would take as long as to run it.
SELECT set_config('lock_timeout', %(patience)s, true), set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true)

-- name: caller_patience
-- Bound the wait for a lock, and read the isolation of a caller's transaction and when it began. Its own bound is kept for
-- `restore_patience`.
SELECT current_setting('transaction_isolation'), now()::text,
    set_config('milepost.lock_timeout', current_setting('lock_timeout'), true),
    set_config('lock_timeout', %(patience)s, true)

-- name: restore_patience
-- Give a caller's transaction its own bound of waits for a lock again.
SELECT set_config('lock_timeout', current_setting('milepost.lock_timeout'), true)

-- name: columns
-- Part of every read of jobs: the columns of `rows.Row`, and whether a draining lease keeps the job from being claimed.
    j.n, j.id, j.created, j.type, j.status, l.expires, l.token, j.queue, j.unique_key, j.body, 0,
    j.queue IS NOT NULL AND (
        EXISTS (SELECT FROM [draining] AS d WHERE d.id = j.id)
        OR EXISTS (SELECT FROM [draining] AS d WHERE d.key = j.unique_key AND d.key <> '')
    )

-- name: get
-- Read one job, with its large values.
SELECT (SELECT json_object_agg(v.name, v.value) FROM [large] AS v WHERE v.id = j.id),
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id WHERE j.id = %(id)s

-- name: get_all
-- Read jobs, in the order of their ids in the array.
SELECT
    --@columns
FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS w (id, place)
JOIN [jobs] AS j ON j.id = w.id LEFT JOIN [leases] AS l ON l.id = j.id ORDER BY w.place

-- name: lock_others
-- Let records that guards ask about not change until the end.
SELECT id FROM [jobs] WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE

-- name: lock_free_others
-- The same, without those that another transaction has locked.
SELECT id FROM [jobs] WHERE id = ANY(%(ids)s) ORDER BY id FOR SHARE SKIP LOCKED

-- name: others
-- Read these records once they are locked. A statement that waited for a lock would still read their leases from before.
SELECT
    --@columns
FROM [jobs] AS j LEFT JOIN [leases] AS l ON l.id = j.id WHERE j.id = ANY(%(ids)s) ORDER BY j.id

-- name: large_get
-- Read the large values of jobs.
SELECT id, name, value FROM [large] WHERE id = ANY(%(ids)s)

-- name: lock_keys
-- Let one transaction at a time make a job with a unique key active. `ids` are the records that may be.
SELECT pg_advisory_xact_lock(hashtextextended('[jobs]' || key, 1)) FROM (
    SELECT unnest(%(keys)s::text[]) AS key
    UNION SELECT unique_key FROM [jobs] WHERE id = ANY(%(ids)s::text[]) AND unique_key IS NOT NULL
    ORDER BY key
) AS k

-- name: keys_of_locks
-- Find which of these unique keys have these locks.
SELECT DISTINCT key FROM unnest(%(keys)s::text[]) AS k (key)
WHERE hashtextextended('[jobs]' || key, 1) = ANY(%(locks)s::bigint[]) ORDER BY key

-- name: keys_of_others
-- Find which of these unique keys other transactions have locked, or wait for.
SELECT DISTINCT key FROM unnest(%(keys)s::text[]) AS k (key) JOIN pg_locks AS l ON l.locktype = 'advisory' AND l.objsubid = 1
    AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('[jobs]' || key, 1)
WHERE l.pid <> pg_backend_pid() AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY key

-- name: lock_jobs
-- Lock the records of a batch, in the order of their ids, so that two batches cannot wait for each other. A job that is to
-- wait for one of them may be created in the meantime.
SELECT id FROM [jobs] WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE

-- name: lock_jobs_to_remove
-- The same for a batch that removes records, which waits until those jobs are created.
SELECT id FROM [jobs] WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE

-- name: lock_leases
-- Lock the leases that a sweep has found expired, so that they are not renewed in the meantime.
SELECT id FROM [leases] WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE

-- name: batch
-- Read what a batch needs to know of its ids: records, draining leases, tombstones; and whether any job waits for others.
SELECT w.id, s.token, s.expires, s.key, s.slot, s.worker, s.groups, t.kept, EXISTS (SELECT FROM [held]), c.value, c.at,
    --@columns
FROM unnest(%(ids)s::text[]) AS w (id)
LEFT JOIN [jobs] AS j ON j.id = w.id
LEFT JOIN [leases] AS l ON l.id = w.id
LEFT JOIN [checkpoints] AS c ON c.id = w.id AND c.token = l.token
LEFT JOIN [draining] AS s ON s.id = w.id
LEFT JOIN [tombstones] AS t ON t.id = w.id AND t.until > [now](%(seen)s, %(lead)s)

-- name: now_and_fences
-- Read the clock, and take fences.
SELECT [now](%(seen)s, %(lead)s), ARRAY(SELECT nextval('[fence]') FROM generate_series(1, %(fences)s))

-- name: keys
-- Read the newest other record of each unique key of a batch, and the keys of draining leases. No other transaction makes
-- a record of these keys active, so none is locked.
SELECT k.key, o.id, o.status, o.n, EXISTS (SELECT FROM [draining] AS d WHERE d.key = k.key AND d.id <> ALL(%(ids)s))
FROM (
    SELECT unnest(%(keys)s::text[]) AS key
    UNION SELECT unique_key FROM [jobs] WHERE id = ANY(%(ids)s) AND unique_key IS NOT NULL
) AS k
LEFT JOIN LATERAL (
    SELECT j.id, j.status, j.n FROM [jobs] AS j
    WHERE j.unique_key = k.key AND j.id <> ALL(%(ids)s) ORDER BY j.n DESC LIMIT 1
) AS o ON true

-- name: jobs_delete
-- Delete records, and the kept results of their runs; the feed keeps their events for a while.
WITH gone AS (DELETE FROM [jobs] WHERE id = ANY(%(ids)s)),
    large AS (DELETE FROM [large] WHERE id = ANY(%(ids)s)),
    results AS (
        DELETE FROM [kv] USING unnest(%(first)s::text[], %(last)s::text[]) AS r (first, last)
        WHERE key >= r.first AND key < r.last
    )
UPDATE [events] SET keep = 0 WHERE id = ANY(%(ids)s) AND keep > 0

-- name: jobs_insert
-- Insert records.
INSERT INTO [jobs] (id, created, type, status, stalled, queue, unique_key, deadline, stale, ended, body)
SELECT * FROM unnest(
    %(id)s::text[], %(created)s::bigint[], %(type)s::text[], %(status)s::text[], %(stalled)s::boolean[],
    %(queue)s::text[], %(unique_key)s::text[], %(deadline)s::bigint[], %(stale)s::bigint[], %(ended)s::bigint[],
    %(body)s::text[]
)

-- name: jobs_update
-- Update records.
UPDATE [jobs] AS j SET
    created = u.created, type = u.type, status = u.status, stalled = u.stalled, queue = u.queue,
    unique_key = u.unique_key, deadline = u.deadline, stale = u.stale, ended = u.ended, body = u.body
FROM unnest(
    %(id)s::text[], %(created)s::bigint[], %(type)s::text[], %(status)s::text[], %(stalled)s::boolean[],
    %(queue)s::text[], %(unique_key)s::text[], %(deadline)s::bigint[], %(stale)s::bigint[], %(ended)s::bigint[],
    %(body)s::text[]
) AS u (id, created, type, status, stalled, queue, unique_key, deadline, stale, ended, body)
WHERE j.id = u.id

-- name: ready_insert
-- Place new records in queues.
INSERT INTO [ready] SELECT * FROM unnest(
    %(id)s::text[], %(queue)s::text[], %(rank)s::bigint[], %(created)s::bigint[], %(due)s::bigint[], %(subqueue)s::text[],
    %(deadline)s::bigint[], %(unique_key)s::text[]
)

-- name: ready_put
-- Place records in queues, also those that are in one.
    --@ready_insert
ON CONFLICT (id) DO UPDATE SET queue = excluded.queue, rank = excluded.rank, created = excluded.created,
    due = excluded.due, subqueue = excluded.subqueue, deadline = excluded.deadline, unique_key = excluded.unique_key

-- name: ready_delete
-- Take records from their queues.
DELETE FROM [ready] WHERE id = ANY(%(ids)s)

-- name: leases_insert
-- Store live leases of records without one.
INSERT INTO [leases] SELECT * FROM unnest(
    %(id)s::text[], %(token)s::text[], %(expires)s::bigint[], %(slot)s::text[], %(worker)s::text[]
)

-- name: leases_put
-- Store live leases, also of records that have one.
    --@leases_insert
ON CONFLICT (id) DO UPDATE SET token = excluded.token, expires = excluded.expires, slot = excluded.slot,
    worker = excluded.worker

-- name: leases_delete
-- End live leases. The record has their checkpoints now.
WITH c AS (DELETE FROM [checkpoints] WHERE id = ANY(%(ids)s))
DELETE FROM [leases] WHERE id = ANY(%(ids)s)

-- name: draining_put
-- Store draining leases.
INSERT INTO [draining] SELECT u.id, u.token, u.expires, u.key, u.slot, u.worker, string_to_array(u.groups, E'\x1f')
FROM unnest(
    %(id)s::text[], %(token)s::text[], %(expires)s::bigint[], %(key)s::text[], %(slot)s::text[], %(worker)s::text[],
    %(groups)s::text[]
) AS u (id, token, expires, key, slot, worker, groups)
ON CONFLICT (id) DO UPDATE SET token = excluded.token, expires = excluded.expires, key = excluded.key,
    slot = excluded.slot, worker = excluded.worker, groups = excluded.groups

-- name: draining_delete
-- End draining leases.
DELETE FROM [draining] WHERE id = ANY(%(ids)s)

-- name: labels_delete
-- Delete labels.
DELETE FROM [labels] AS o USING unnest(%(pair)s::text[], %(created)s::bigint[], %(id)s::text[]) AS u (pair, created, id)
WHERE o.pair = u.pair AND o.created = u.created AND o.id = u.id

-- name: labels_put
-- Add labels.
INSERT INTO [labels] SELECT * FROM unnest(%(pair)s::text[], %(created)s::bigint[], %(id)s::text[])

-- name: large_delete
-- Delete large values.
DELETE FROM [large] AS v USING unnest(%(id)s::text[], %(name)s::text[]) AS u (id, name) WHERE v.id = u.id AND v.name = u.name

-- name: large_put
-- Store large values.
INSERT INTO [large] SELECT * FROM unnest(%(id)s::text[], %(name)s::text[], %(value)s::text[])
ON CONFLICT (id, name) DO UPDATE SET value = excluded.value

-- name: tombstones_put
-- Store the tombstones of removed records.
INSERT INTO [tombstones] SELECT * FROM unnest(%(id)s::text[], %(kept)s::text[], %(until)s::bigint[])
ON CONFLICT (id) DO UPDATE SET kept = excluded.kept, until = excluded.until

-- name: wakes_put
-- Wake workers. The names are sorted.
INSERT INTO [wakes] SELECT worker, %(at)s FROM unnest(%(workers)s::text[]) AS w (worker)
ON CONFLICT (worker) DO UPDATE SET at = excluded.at

-- name: events_put
-- Append events to the feed, in this order.
INSERT INTO [events] (id, version, kind, at, keep, body)
SELECT id, version, kind, at, keep, body FROM unnest(
    %(id)s::text[], %(version)s::bigint[], %(kind)s::text[], %(at)s::bigint[], %(keep)s::smallint[], %(body)s::text[]
) WITH ORDINALITY AS u (id, version, kind, at, keep, body, place) ORDER BY place

-- name: events_bound
-- Leave events beyond the bound of a job's list to the feed.
UPDATE [events] AS e SET keep = 0
FROM unnest(%(ids)s::text[]) AS w (id) CROSS JOIN LATERAL (
    SELECT o.version FROM [events] AS o WHERE o.id = w.id AND o.keep = 1 ORDER BY o.version DESC LIMIT 1 OFFSET %(kept)s
) AS b
WHERE e.id = w.id AND e.keep = 1 AND e.version <= b.version

-- name: deltas_put
-- Add to counts.
INSERT INTO [deltas] SELECT * FROM unnest(%(kind)s::text[], %(name)s::text[], %(status)s::text[], %(n)s::bigint[])

-- name: deltas_delete
-- Delete the changes of these kinds of counts.
DELETE FROM [deltas] WHERE kind = ANY(%(kinds)s)

-- name: tallies_delete
-- Delete the sums of these kinds of counts.
DELETE FROM [tallies] WHERE kind = ANY(%(kinds)s)

-- name: open_ends_add
-- Count ends.
INSERT INTO [open_ends] SELECT * FROM unnest(
    %(minute)s::bigint[], %(series)s::text[], %(metric)s::text[], %(count)s::bigint[]
)

-- name: checkpoint_put
-- Store the checkpoint of a run, if its lease exists, which is then not taken until the end. Nothing else is locked.
WITH held AS (SELECT id FROM [leases] WHERE id = %(id)s AND token = %(token)s FOR KEY SHARE)
INSERT INTO [checkpoints] SELECT id, %(token)s, %(value)s, [now](%(seen)s, %(lead)s) FROM held
ON CONFLICT (id) DO UPDATE SET token = excluded.token, value = excluded.value, at = excluded.at
RETURNING pg_current_xact_id()::text

-- name: transaction_id
-- Read the number of the transaction.
SELECT pg_current_xact_id()::text

-- name: transaction_status
-- Say whether a transaction is in progress, committed or aborted. Of one from long ago the server does not know it any more.
SELECT CASE WHEN pg_visible_in_snapshot(%(transaction)s::text::xid8, pg_current_snapshot())
    THEN coalesce(pg_xact_status(%(transaction)s::text::xid8), 'committed') ELSE 'in progress'
END

-- name: savepoint
-- Begin what can be undone without the rest of a caller's transaction.
SAVEPOINT milepost

-- name: savepoint_undo
-- Undo what came since.
ROLLBACK TO SAVEPOINT milepost

-- name: savepoint_release
-- End the savepoint.
RELEASE SAVEPOINT milepost
