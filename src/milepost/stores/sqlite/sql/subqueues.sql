-- The subqueues of queues, in rings: those of one queue and limit key, in the order of their turns. A claim reads only the first ones.

-- name: subqueue_put
-- Store the rank of the first claimable record of a subqueue, NULL if there is none.
INSERT INTO [subqueues] (name, ring, rank, turn) VALUES (:name, :ring, (
    SELECT rank FROM [jobs] INDEXED BY [jobs_claimable] WHERE queue = :name AND scheduled IS NULL ORDER BY rank LIMIT 1
), 0)
ON CONFLICT DO UPDATE SET rank = excluded.rank WHERE [subqueues].rank IS NOT excluded.rank

-- name: rings
-- Read the rings of a queue that have claimable records: the texts in [:first, :end), found one after another in the index.
WITH RECURSIVE [rings] (ring) AS (
    SELECT min(ring) FROM [subqueues] INDEXED BY [subqueues_first] WHERE ring >= :first AND ring < :end AND rank IS NOT NULL
    UNION ALL
    SELECT (
        SELECT min(ring) FROM [subqueues] INDEXED BY [subqueues_first]
        WHERE ring > [rings].ring AND ring < :end AND rank IS NOT NULL
    ) FROM [rings] WHERE [rings].ring IS NOT NULL
)
SELECT ring FROM [rings] WHERE ring IS NOT NULL

-- name: first_subqueues
-- Read the first subqueues of a ring that have claimable records, after the position (:rank, :turn, :name).
SELECT rank, turn, name FROM [subqueues] INDEXED BY [subqueues_first]
WHERE ring = :ring AND rank IS NOT NULL AND (rank, turn, name) > (:rank, :turn, :name)
ORDER BY rank, turn, name LIMIT :most

-- name: turn_get
-- Read when a queue had its last turn.
-- Values: name
SELECT turn FROM [subqueues] WHERE name = ?

-- name: turn_take
-- Give the next turn to a subqueue, or to a queue that has some, and return its number.
INSERT INTO [subqueues] (name, ring, turn) VALUES (:name, :ring, (SELECT coalesce(max(turn), 0) + 1 FROM [subqueues]))
ON CONFLICT DO UPDATE SET turn = excluded.turn RETURNING turn

-- name: turns_forget
-- Delete the turns of those without claimable records, except for the newest turns.
-- Values: how many to keep
DELETE FROM [subqueues] WHERE rank IS NULL
    AND turn <= coalesce((SELECT turn FROM [subqueues] ORDER BY turn DESC LIMIT 1 OFFSET ?), 0)
