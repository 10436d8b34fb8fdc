-- The groups that jobs wait for: job:ID has that job as its only member, those of the other kinds have rows in `members`.

-- name: members
-- Read jobs, which cannot be removed until the end; everything else may happen to them.
SELECT id, status, ended IS NOT NULL FROM [jobs] WHERE id = ANY(%(members)s) ORDER BY id FOR KEY SHARE

-- name: stopping_members
-- Read which members have a draining lease.
SELECT id FROM [draining] WHERE id = ANY(%(members)s)

-- name: open_members
-- Part of what asks for groups: whether one, `g.grp`, has an open member.
    EXISTS (SELECT FROM [members] AS m WHERE m.grp = g.grp AND m.ended = '' AND m.id <> ALL(%(ids)s::text[]))
    OR EXISTS (
        SELECT FROM [draining] AS d
        WHERE d.groups <> '{}' AND d.groups @> ARRAY[g.grp] AND d.id <> ALL(%(ids)s::text[])
    )

-- name: group_members
-- Read whether groups have members, and open ones, and one ended member of each status; all outside the batch. A member
-- that makes its group known cannot be removed until the end.
SELECT g.grp, known.id IS NOT NULL,
    --@open_members
    , ARRAY(
        SELECT (
            SELECT m.id FROM [members] AS m
            WHERE m.grp = g.grp AND m.ended = s.status AND m.id <> ALL(%(ids)s::text[]) ORDER BY m.id LIMIT 1
        ) FROM unnest(%(statuses)s::text[]) WITH ORDINALITY AS s (status, place) ORDER BY s.place
    )
FROM unnest(%(groups)s::text[]) AS g (grp) LEFT JOIN LATERAL (
    SELECT j.id FROM [members] AS m JOIN [jobs] AS j ON j.id = m.id
    WHERE m.grp = g.grp AND m.id <> ALL(%(ids)s::text[]) LIMIT 1 FOR KEY SHARE OF j SKIP LOCKED
) AS known ON true

-- name: removed_members
-- Read the status and the id of removed members of groups, one of each status.
SELECT grp, status, id FROM [removed_members] WHERE grp = ANY(%(groups)s)

-- name: needs_ends
-- Part of both: whether the `after` of a record names a group, `r.grp`, or a batch that has not ended is named so.
    EXISTS (SELECT FROM [labels] AS o WHERE o.pair = ':after=' || r.grp)
    OR starts_with(r.grp, 'group:') AND EXISTS (
        SELECT FROM [jobs] AS b WHERE b.id = substr(r.grp, 7) AND b.type = 'batch' AND b.ended IS NULL
    )

-- name: removed_members_put
-- Keep the ends of removed members of groups, where they are needed.
INSERT INTO [removed_members] SELECT r.grp, r.status, r.id
FROM unnest(%(groups)s::text[], %(statuses)s::text[], %(ids)s::text[]) AS r (grp, status, id)
WHERE
    --@needs_ends
ON CONFLICT (grp, status) DO UPDATE SET id = excluded.id

-- name: removed_members_delete
-- Delete what is kept of groups, where it is not needed.
DELETE FROM [removed_members] AS r WHERE r.grp = ANY(%(groups)s) AND NOT (
    --@needs_ends
)

-- name: members_put
-- Add members to groups, each with its status once it has ended.
INSERT INTO [members] SELECT * FROM unnest(%(group)s::text[], %(ended)s::text[], %(id)s::text[])

-- name: members_delete
-- Remove members from groups.
DELETE FROM [members] AS m USING unnest(%(group)s::text[], %(ended)s::text[], %(id)s::text[]) AS u (grp, ended, id)
WHERE m.grp = u.grp AND m.ended = u.ended AND m.id = u.id

-- name: held_by
-- Read the first jobs that a group holds.
SELECT id FROM [held] WHERE grp = %(group)s ORDER BY created, id LIMIT %(limit)s

-- name: open_members_of
-- Read the first open members of a group.
SELECT id FROM [members] WHERE grp = %(group)s AND ended = '' ORDER BY id LIMIT %(limit)s

-- name: member_counts
-- Read how many members of each group are in each state.
SELECT grp, ended, count(*) FROM [members] WHERE grp = ANY(%(groups)s::text[]) GROUP BY grp, ended

-- name: held_put
-- Add jobs to those that groups hold.
INSERT INTO [held] SELECT * FROM unnest(%(group)s::text[], %(created)s::bigint[], %(id)s::text[])

-- name: held_delete
-- Remove jobs from those that groups hold.
DELETE FROM [held] AS h USING unnest(%(group)s::text[], %(created)s::bigint[], %(id)s::text[]) AS u (grp, created, id)
WHERE h.grp = u.grp AND h.created = u.created AND h.id = u.id

-- name: is_open
-- Part of what looks for closed groups: whether `g.grp` is open.
    CASE WHEN starts_with(g.grp, 'job:') THEN
        EXISTS (SELECT FROM [jobs] AS j WHERE j.id = substr(g.grp, 5) AND j.ended IS NULL)
        OR EXISTS (SELECT FROM [draining] AS d WHERE d.id = substr(g.grp, 5))
    ELSE
        --@open_members
    END

-- name: closed_groups
-- Find which groups have closed while jobs wait for them, and which orphans are open. Those of a transaction `xid` are
-- looked at once it has ended.
SELECT g.grp, g.xid, CASE WHEN starts_with(g.grp, 'orphans:') THEN
    EXISTS (SELECT FROM [members] AS m WHERE m.grp = 'children:' || substr(g.grp, 9) AND m.ended = '')
ELSE EXISTS (SELECT FROM [held] AS h WHERE h.grp = g.grp) AND NOT
    --@is_open
END
FROM unnest(%(groups)s::text[], %(xids)s::text[]) AS g (grp, xid)
WHERE g.xid IS NULL OR pg_visible_in_snapshot(g.xid::xid8, pg_current_snapshot())

-- name: closing
-- Find all groups that have closed while jobs wait for them, and all parents with orphans. What begins with ``user:`` is no
-- group, see `core.placement`.
SELECT g.grp FROM (SELECT DISTINCT grp FROM [held] WHERE NOT starts_with(grp, 'user:')) AS g WHERE NOT
    --@is_open
UNION SELECT 'orphans:' || substr(m.grp, 10) FROM [members] AS m JOIN [jobs] AS c ON c.id = m.id
    LEFT JOIN [jobs] AS p ON p.id = substr(m.grp, 10)
WHERE m.grp >= 'children:' AND m.grp < 'children;' AND m.ended = '' AND strpos(c.body, E'\nchild_key=') > 0
    AND strpos(c.body, E'\ndetached=') = 0 AND (p.id IS NULL OR p.status = ANY(%(lost)s))
ORDER BY 1
