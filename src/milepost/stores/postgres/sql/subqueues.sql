-- The subqueues of queues, and their turns. The first ones are found without reading the others: a row has the rank of the first
-- claimable record and the last turn. Only claims change these rows, under the lock of the limit key. What makes a record
-- claimable adds an arrival. What removes one leaves a rank that is too low until a claim sees it.

-- name: keys_of_subqueues
-- Part of claims: a subqueue of each limit key of the queues, found one after another in the index, and NULL at the end. The
-- names of a key's partitions are less than that of the key with a space, see `AFTER_US` of `milepost.core.limits`.
WITH RECURSIVE names AS (
    SELECT q.queue, (
        SELECT min(r.queue) FROM [ready] AS r
        WHERE r.queue >= q.queue || E'\x1f' AND r.queue < q.queue || ' ' AND r.due IS NULL
    ) AS name FROM unnest(%(queues)s::text[]) AS q (queue)
    UNION ALL
    SELECT n.queue, (
        SELECT min(r.queue) FROM [ready] AS r
        WHERE r.queue >= n.queue || E'\x1f' || split_part(n.name, E'\x1f', 2) || ' ' AND r.queue < n.queue || ' '
            AND r.due IS NULL
    ) FROM names AS n WHERE n.name IS NOT NULL
)

-- name: lock_keys_of_limits
-- Let one transaction at a time claim jobs of a type that has a limit, or of a limit key that has subqueues. Return these with
-- their rings, and whether their jobs start in turn: those with subqueues or a rate.
    --@keys_of_subqueues
SELECT key, in_turn, rings, pg_advisory_xact_lock(hashtextextended('[leases]' || key, 2)) FROM (
    SELECT k.key, bool_or(k.in_turn) AS in_turn, array_agg(DISTINCT k.queue || E'\x1f' || k.key) AS rings FROM (
        SELECT q.queue, q.slot AS key, s.rate IS NOT NULL AS in_turn
        FROM unnest(%(queues)s::text[], %(slots)s::text[], %(own)s::bigint[]) AS q (queue, slot, own)
        LEFT JOIN [limits] AS s ON s.key = q.slot
        WHERE coalesce(s.most, q.own) IS NOT NULL OR s.rate IS NOT NULL
        UNION ALL SELECT n.queue, split_part(n.name, E'\x1f', 2), true FROM names AS n WHERE n.name IS NOT NULL
    ) AS k GROUP BY k.key ORDER BY k.key
) AS limited

-- name: rings
-- Find the queues with their limit keys that have claimable subqueues.
    --@keys_of_subqueues
SELECT DISTINCT n.queue || E'\x1f' || split_part(n.name, E'\x1f', 2) FROM names AS n WHERE n.name IS NOT NULL

-- name: arrivals_put
-- Note that records came to subqueues.
INSERT INTO [arrivals] SELECT unnest(%(names)s::text[])

-- name: arrivals_take
-- Enter the subqueues of these rings to which records came.
WITH came AS (
    DELETE FROM [arrivals] AS a USING unnest(%(rings)s::text[]) AS g (ring)
    WHERE a.name >= g.ring AND a.name < g.ring || ' ' RETURNING a.name
)
INSERT INTO [subqueues] (name, rank, turn)
SELECT c.name, h.rank, 0 FROM (SELECT DISTINCT name FROM came ORDER BY name) AS c CROSS JOIN LATERAL (
    SELECT r.rank FROM [ready] AS r WHERE r.queue = c.name AND r.due IS NULL ORDER BY r.rank LIMIT 1
) AS h
ON CONFLICT (name) DO UPDATE SET rank = excluded.rank

-- name: first_subqueues
-- Read the first subqueues of rings, without those that are full, each with its rank as it is now.
SELECT s.rank, s.turn, s.name, s.found FROM unnest(%(rings)s::text[]) AS g (ring) CROSS JOIN LATERAL (
    SELECT s.rank, s.turn, s.name, (
        SELECT r.rank FROM [ready] AS r WHERE r.queue = s.name AND r.due IS NULL ORDER BY r.rank LIMIT 1
    ) AS found
    FROM [subqueues] AS s WHERE s.ring = g.ring AND s.rank IS NOT NULL AND s.name <> ALL(%(full)s::text[])
    ORDER BY s.rank, s.turn, s.name LIMIT %(most)s
) AS s

-- name: ranks_put
-- Store the ranks of subqueues.
UPDATE [subqueues] AS s SET rank = n.rank FROM unnest(%(names)s::text[], %(ranks)s::bigint[]) AS n (name, rank)
WHERE s.name = n.name

-- name: queue_turns
-- Read when queues had their last turn.
SELECT q.queue, coalesce(s.turn, 0) FROM unnest(%(queues)s::text[]) AS q (queue) LEFT JOIN [subqueues] AS s ON s.name = q.queue

-- name: subqueue_of
-- Find the name under which a record is claimable.
SELECT queue FROM [ready] WHERE id = %(job)s AND due IS NULL

-- name: turns_put
-- Store when subqueues had their last turn. Their first records have gone.
INSERT INTO [subqueues] (name, rank, turn)
SELECT n.name, (SELECT r.rank FROM [ready] AS r WHERE r.queue = n.name AND r.due IS NULL ORDER BY r.rank LIMIT 1), n.turn
FROM unnest(%(names)s::text[], %(turns)s::bigint[]) AS n (name, turn)
ON CONFLICT (name) DO UPDATE SET rank = excluded.rank, turn = excluded.turn

-- name: subqueues_lock
-- Find and lock subqueues whose last turn is forgotten: those without a claimable record beyond the newest :turns.
SELECT s.name FROM [subqueues] AS s
WHERE s.turn <= (SELECT turn FROM [subqueues] ORDER BY turn DESC LIMIT 1 OFFSET %(turns)s) AND NOT EXISTS (
    SELECT FROM [ready] AS r WHERE r.queue = s.name AND r.due IS NULL
)
LIMIT 1000 FOR UPDATE SKIP LOCKED

-- name: subqueues_forget
-- Delete those of locked subqueues that have no claimable record, and arrivals of records that have gone since.
WITH a AS (DELETE FROM [arrivals] AS a WHERE NOT EXISTS (
    SELECT FROM [ready] AS r WHERE r.queue = a.name AND r.due IS NULL
))
DELETE FROM [subqueues] AS s WHERE s.name = ANY(%(names)s) AND NOT EXISTS (
    SELECT FROM [ready] AS r WHERE r.queue = s.name AND r.due IS NULL
)

-- name: claim_subqueues
-- Read and lock the first claimable records, or one record, of subqueues.
WITH open AS (
    SELECT * FROM unnest(%(names)s::text[], %(names)s::text[], %(capacities)s::bigint[]) AS q (queue, slot, capacity)
)
    --@claim_heads
            AND r.due IS NULL AND (%(job)s::text IS NULL OR r.id = %(job)s)
    --@claim_rows

-- name: claimable_in
-- Check whether a subqueue of rings has a record that may be claimed. Their names are found one after another in the index, until
-- there is one; the planner would join EXISTS with all of them.
WITH RECURSIVE names AS (
    SELECT g.ring, (
        SELECT min(r.queue) FROM [ready] AS r WHERE r.queue >= g.ring AND r.queue < g.ring || ' ' AND r.due IS NULL
    ) AS name FROM unnest(%(rings)s::text[]) AS g (ring)
    UNION ALL
    SELECT n.ring, (
        SELECT min(r.queue) FROM [ready] AS r WHERE r.queue > n.name AND r.queue < n.ring || ' ' AND r.due IS NULL
    ) FROM names AS n WHERE n.name IS NOT NULL
)
SELECT EXISTS (
    SELECT FROM names AS n WHERE n.name <> ALL(%(full)s::text[]) AND (
        SELECT true FROM [ready] AS r WHERE r.queue = n.name AND r.due IS NULL
            AND (r.deadline IS NULL OR r.deadline > [now](%(seen)s, %(lead)s))
            --@unparked
        LIMIT 1
    )
)
