-- What workers claim: queues, their limits, and how a waiting worker is woken.

-- name: unparked
-- Part of every read of `ready`: no draining lease has this id or its unique key. Written so that the planner asks this of each
-- record in the order of the index, until there are enough; it would join NOT EXISTS with all claimable records and sort them.
    AND (SELECT true FROM [draining] AS d WHERE d.id = r.id) IS NULL
    AND (SELECT true FROM [draining] AS d WHERE d.key = r.unique_key AND d.key <> '' LIMIT 1) IS NULL

-- name: claim_plans
-- Let the planner use plain index scans in what reads a queue. They begin with the first record, however few the statistics
-- expect, and mark the entries of rows that have gone. A bitmap scan reads all of these, and again each time. What is off counts as
-- very expensive where nothing else is left, for which PostgreSQL would start its compiler (`jit`).
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)

-- name: open_queues
-- Part of every claim: the queues that may start jobs now, each with its slot and how many.
    SELECT q.queue, q.slot, least(%(most)s, coalesce(s.most, q.own) - h.held) AS capacity
    FROM unnest(%(queues)s::text[], %(slots)s::text[], %(own)s::bigint[]) AS q (queue, slot, own)
    LEFT JOIN [limits] AS s ON s.key = q.slot LEFT JOIN [gates] AS g ON g.key = q.slot
    CROSS JOIN LATERAL (
        SELECT CASE WHEN coalesce(s.most, q.own) IS NULL THEN 0 ELSE
            (SELECT count(*) FROM [leases] AS l WHERE l.slot >= q.slot AND l.slot < q.slot || ' ')
            + (SELECT count(*) FROM [draining] AS d WHERE d.slot >= q.slot AND d.slot < q.slot || ' ')
        END AS held
    ) AS h
    WHERE NOT coalesce(s.paused, false)
        AND (coalesce(s.opens, 0) = 0 AND g.until IS NULL OR greatest(s.opens, g.until) <= [now](%(seen)s, %(lead)s))

-- name: next_opening
-- Part of what waits for jobs: when the next of the gates and rates of these types opens that is closed now. It is read before the
-- open queues, so that one that opens in between is open for these.
    SELECT min(greatest(s.opens, g.until)) FROM unnest(%(slots)s::text[]) AS q (slot)
    LEFT JOIN [limits] AS s ON s.key = q.slot LEFT JOIN [gates] AS g ON g.key = q.slot
    WHERE greatest(s.opens, g.until) > 0 AND greatest(s.opens, g.until) > [now](%(seen)s, %(lead)s)

-- name: held_slots
-- Count the leases of limit keys by slot.
SELECT s.slot, count(*) FROM unnest(%(keys)s::text[]) AS k (key) CROSS JOIN LATERAL (
    SELECT l.slot FROM [leases] AS l WHERE l.slot >= k.key AND l.slot < k.key || ' '
    UNION ALL SELECT d.slot FROM [draining] AS d WHERE d.slot >= k.key AND d.slot < k.key || ' '
) AS s GROUP BY s.slot

-- name: all_held_slots
-- Count the leases of each slot, live and draining.
SELECT slot, count(*) FROM [leases] GROUP BY slot UNION ALL SELECT slot, count(*) FROM [draining] GROUP BY slot

-- name: claimable_jobs
-- Count the claimable records of limit keys with a setting, by the name under which they are claimed. The names are found one
-- after another in the index.
WITH RECURSIVE names AS (
    SELECT min(r.queue) AS name FROM [ready] AS r WHERE r.due IS NULL
    UNION ALL
    SELECT (SELECT min(r.queue) FROM [ready] AS r WHERE r.queue > n.name AND r.due IS NULL)
    FROM names AS n WHERE n.name IS NOT NULL
)
SELECT n.name, (
    SELECT count(*) FROM [ready] AS r WHERE r.queue = n.name AND r.due IS NULL
        --@unparked
) FROM names AS n WHERE n.name IS NOT NULL AND
    coalesce(nullif(split_part(n.name, E'\x1f', 2), ''), split_part(n.name, '@', 1)) IN (
        SELECT s.key FROM [limits] AS s UNION ALL SELECT g.key FROM [gates] AS g
    )

-- name: claim_repeated
-- Read the answer to an earlier claim.
SELECT ids FROM [claims] WHERE worker = %(worker)s AND op = %(op)s AND until > [now](%(seen)s, %(lead)s)

-- name: claim_promote
-- Make due records claimable, the longest waiting first. The clock is read once: with a clock of each row, no index finds them.
WITH promoted AS (
    UPDATE [ready] SET due = NULL, queue = coalesce(subqueue, queue) WHERE id IN (
        SELECT p.id FROM unnest(%(queues)s::text[]) AS q (queue) CROSS JOIN LATERAL (
            SELECT r.id FROM [ready] AS r WHERE r.queue = q.queue AND r.due <= (SELECT [now](%(seen)s, %(lead)s))
            ORDER BY r.due LIMIT %(promoted)s FOR UPDATE SKIP LOCKED
        ) AS p
    ) RETURNING subqueue
)
INSERT INTO [arrivals] SELECT DISTINCT subqueue FROM promoted WHERE subqueue IS NOT NULL

-- name: claim_heads
-- Part of claims: the first claimable records of the open queues, locked. What another transaction has locked is left to it.
-- Their columns are those of the locked rows. Read once more by id, a row would be the one from before the lock.
, heads AS (
    SELECT o.slot, o.capacity, r.* FROM open AS o CROSS JOIN LATERAL (
        SELECT r.rank, j.n, j.id, j.created, j.type, j.status, j.queue, j.unique_key, j.body
        FROM [ready] AS r JOIN [jobs] AS j ON j.id = r.id
        WHERE r.queue = o.queue
            AND (r.deadline IS NULL OR r.deadline > [now](%(seen)s, %(lead)s))
            AND r.id <> ALL(%(refused)s::text[])
            --@unparked

-- name: claim_rows
-- Part of claims: the rest, with fences for their leases.
        ORDER BY r.rank, r.created, r.id LIMIT CASE WHEN o.capacity > 0 THEN o.capacity + %(more)s::bigint ELSE 0 END
        FOR UPDATE OF r SKIP LOCKED FOR NO KEY UPDATE OF j SKIP LOCKED
    ) AS r
)
SELECT j.rank, j.slot, j.capacity, nextval('[fence]'),
    --@columns
FROM heads AS j LEFT JOIN [leases] AS l ON l.id = j.id

-- name: claim_next
-- Read and lock the first claimable records.
WITH open AS (
    --@open_queues
)
    --@claim_heads
            AND r.due IS NULL
    --@claim_rows

-- name: claim_named
-- Read and lock one record, if its queue is open.
WITH open AS (
    --@open_queues
)
    --@claim_heads
            AND r.due IS NULL AND r.id = %(job)s
    --@claim_rows

-- name: next_due
-- Part of what waits for jobs: when the next scheduled record of each queue is due. The largest number stands for a held record.
CROSS JOIN LATERAL (
    SELECT r.due FROM [ready] AS r WHERE r.queue = q.queue AND r.due < 9223372036854775807
        --@unparked
    ORDER BY r.due LIMIT 1
) AS p

-- name: claim_next_due
-- Find when the next scheduled record of the queues is due, or a gate or rate opens.
SELECT least(min(p.due), (
    --@next_opening
)) FROM unnest(%(queues)s::text[]) AS q (queue)
    --@next_due

-- name: claim_put
-- Store the answer to a claim.
INSERT INTO [claims] VALUES (%(worker)s, %(op)s, %(ids)s, %(until)s)
ON CONFLICT (worker) DO UPDATE SET op = excluded.op, ids = excluded.ids, until = excluded.until

-- name: work
-- Find when the next record of a worker's queues is due, whether it is woken, whether it could claim a job, the clock, and which
-- of these queues have subqueues.
WITH open AS (
    --@open_queues
)
SELECT
    least((
        --@next_opening
    ), (
        SELECT min(p.due) FROM open AS q
            --@next_due
    )),
    EXISTS (SELECT FROM [wakes] WHERE worker = %(worker)s),
    EXISTS (
        SELECT FROM open AS o CROSS JOIN LATERAL (
            SELECT FROM [ready] AS r
            WHERE r.queue = o.queue AND o.capacity > 0 AND r.due IS NULL
                AND (r.deadline IS NULL OR r.deadline > [now](%(seen)s, %(lead)s))
                --@unparked
            LIMIT 1
        ) AS p
    ),
    [now](%(seen)s, %(lead)s),
    ARRAY(
        SELECT o.queue FROM open AS o WHERE EXISTS (
            SELECT FROM [ready] AS r
            WHERE r.queue >= o.queue || E'\x1f' AND r.queue < o.queue || ' ' AND r.due IS NULL
        )
    )

-- name: wake_take
-- Delete the wake-up of a worker.
DELETE FROM [wakes] WHERE worker = %(worker)s

-- name: limits
-- Read the limits, pauses and gates of limit keys.
SELECT key, s.most, coalesce(s.paused, false), s.per_partition, s.rate, coalesce(g.until, 0), coalesce(s.opens, 0)
FROM [limits] AS s FULL JOIN [gates] AS g USING (key)

-- name: limit_put
-- Limit or pause a limit key. Values to keep are those of the row, if there is one. Another rate starts afresh.
INSERT INTO [limits] AS l VALUES (%(key)s, %(most)s, %(paused)s, %(per_partition)s, %(rate)s, 0, %(spacing)s, %(tolerance)s)
ON CONFLICT (key) DO UPDATE SET
    opens = CASE WHEN %(keep_rate)s OR l.rate = excluded.rate THEN l.opens ELSE 0 END,
    rate = CASE WHEN %(keep_rate)s THEN l.rate ELSE excluded.rate END,
    spacing = CASE WHEN %(keep_rate)s THEN l.spacing ELSE excluded.spacing END,
    tolerance = CASE WHEN %(keep_rate)s THEN l.tolerance ELSE excluded.tolerance END,
    most = CASE WHEN %(keep_most)s THEN l.most ELSE excluded.most END,
    paused = CASE WHEN %(keep_paused)s THEN l.paused ELSE excluded.paused END,
    per_partition = CASE WHEN %(keep_per_partition)s THEN l.per_partition ELSE excluded.per_partition END

-- name: limit_delete_empty
-- Delete the row of a limit key with neither a limit nor a pause.
DELETE FROM [limits] WHERE key = %(key)s AND most IS NULL AND NOT paused AND per_partition IS NULL AND rate IS NULL

-- name: limit_opens
-- Let the rates of limit keys open later. What others have given back since they were read stays given back.
UPDATE [limits] AS l SET opens = l.opens + n.later FROM unnest(%(keys)s::text[], %(later)s::bigint[]) AS n (key, later) WHERE l.key = n.key

-- name: starts_return
-- Give starts at these times back to the rates of limit keys, as `after_return` of `milepost.core.limits`.
UPDATE [limits] AS l SET opens = greatest(0, l.opens - l.spacing * (
    SELECT count(*) FROM unnest(%(keys)s::text[], %(starts)s::bigint[]) AS n (key, start)
    WHERE n.key = l.key AND n.start <= [now](%(seen)s, %(lead)s) AND [now](%(seen)s, %(lead)s) < n.start + l.spacing + l.tolerance
)) WHERE l.key = ANY(%(keys)s::text[]) AND l.rate IS NOT NULL

-- name: gates_close
-- Let no job of these limit keys start for a time, or for longer where one is set.
INSERT INTO [gates] AS g SELECT * FROM unnest(%(keys)s::text[], %(untils)s::bigint[])
ON CONFLICT (key) DO UPDATE SET until = greatest(g.until, excluded.until)

-- name: gate_close
-- The same for one limit key, from now.
INSERT INTO [gates] AS g VALUES (%(key)s, [now](%(seen)s, %(lead)s) + %(micros)s)
ON CONFLICT (key) DO UPDATE SET until = greatest(g.until, excluded.until)

-- name: gate_delete
-- Open the gate of a limit key.
DELETE FROM [gates] WHERE key = %(key)s

-- name: renew
-- Renew leases, live or draining, and say which they are. A lease that another transaction has locked is left for the next
-- renewal; it cannot be taken in the meantime.
WITH w AS (
    SELECT * FROM unnest(%(ids)s::text[], %(tokens)s::text[]) WITH ORDINALITY AS u (id, token, place)
), live AS (
    UPDATE [leases] AS l SET expires = [now](%(seen)s, %(lead)s) + %(micros)s FROM (
        SELECT o.id FROM [leases] AS o JOIN w ON w.id = o.id AND w.token = o.token FOR NO KEY UPDATE OF o SKIP LOCKED
    ) AS free WHERE l.id = free.id
), stopping AS (
    UPDATE [draining] AS d SET expires = [now](%(seen)s, %(lead)s) + %(micros)s FROM (
        SELECT o.id FROM [draining] AS o JOIN w ON w.id = o.id AND w.token = o.token FOR NO KEY UPDATE OF o SKIP LOCKED
    ) AS free WHERE d.id = free.id
)
SELECT
    CASE WHEN l.id IS NOT NULL THEN 'live' WHEN d.id IS NOT NULL THEN 'stopping' ELSE 'lost' END
FROM w
LEFT JOIN [leases] AS l ON l.id = w.id AND l.token = w.token
LEFT JOIN [draining] AS d ON d.id = w.id AND d.token = w.token
ORDER BY w.place

-- name: renew_check
-- Say which leases are live or draining.
SELECT CASE WHEN l.id IS NOT NULL THEN 'live' WHEN d.id IS NOT NULL THEN 'stopping' ELSE 'lost' END
FROM unnest(%(ids)s::text[], %(tokens)s::text[]) WITH ORDINALITY AS w (id, token, place)
LEFT JOIN [leases] AS l ON l.id = w.id AND l.token = w.token
LEFT JOIN [draining] AS d ON d.id = w.id AND d.token = w.token
ORDER BY w.place

-- name: draining_all
-- Read all draining leases.
SELECT id, token, expires FROM [draining]

-- name: turn_back
-- Move leases later than a bound back with the clock, but not below the least: they were taken by a clock that was ahead. Rates
-- that were spent by it start afresh.
WITH live AS (
    UPDATE [leases] SET expires = greatest(%(least)s, expires - %(ahead)s) WHERE expires > %(bound)s
), rates AS (
    UPDATE [limits] SET opens = 0 WHERE opens > %(bound)s
)
UPDATE [draining] SET expires = greatest(%(least)s, expires - %(ahead)s) WHERE expires > %(bound)s
