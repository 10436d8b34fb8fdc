-- The groups that jobs wait for. The group job:ID has that job as its only member.

-- name: members
-- Read members of groups, which cannot change until the end.
SELECT id, status, ended IS NOT NULL FROM [jobs] WHERE id = ANY(%(members)s) ORDER BY id FOR SHARE

-- name: stopping_members
-- Read which members have a draining lease.
SELECT id FROM [draining] WHERE id = ANY(%(members)s)

-- name: removed_members
-- Read the status and the id of removed members of groups, one of each status.
SELECT grp, status, id FROM [removed_members] WHERE grp = ANY(%(groups)s)

-- name: removed_members_put
-- Keep the status of removed members whose group the `after` of a record names.
INSERT INTO [removed_members] SELECT 'job:' || r.id, r.status, r.id
FROM unnest(%(id)s::text[], %(status)s::text[]) AS r (id, status)
WHERE EXISTS (SELECT FROM [labels] AS o WHERE o.pair = ':after=job:' || r.id)
ON CONFLICT (grp, status) DO UPDATE SET id = excluded.id

-- name: removed_members_delete
-- Delete what is kept of groups that no record names any more.
DELETE FROM [removed_members] AS r
WHERE r.grp = ANY(%(groups)s) AND NOT EXISTS (SELECT FROM [labels] AS o WHERE o.pair = ':after=' || r.grp)

-- name: held_by
-- Read the first jobs that a group holds.
SELECT id FROM [held] WHERE grp = %(group)s ORDER BY created, id LIMIT %(limit)s

-- name: held_put
-- Add jobs to those that groups hold.
INSERT INTO [held] SELECT * FROM unnest(%(group)s::text[], %(created)s::bigint[], %(id)s::text[])

-- name: held_delete
-- Remove jobs from those that groups hold.
DELETE FROM [held] AS h USING unnest(%(group)s::text[], %(created)s::bigint[], %(id)s::text[]) AS u (grp, created, id)
WHERE h.grp = u.grp AND h.created = u.created AND h.id = u.id

-- name: closing_put
-- Let the sweep look at groups that closed while jobs waited for them.
INSERT INTO [closing] SELECT * FROM unnest(%(groups)s::text[]) ON CONFLICT DO NOTHING

-- name: closing_tidy
-- Forget the groups that have opened again, or that no job waits for any more.
DELETE FROM [closing] AS c WHERE NOT EXISTS (SELECT FROM [held] AS h WHERE h.grp = c.grp)
    OR EXISTS (SELECT FROM [jobs] AS j WHERE c.grp = 'job:' || j.id AND j.id = substr(c.grp, 5) AND j.ended IS NULL)
    OR EXISTS (SELECT FROM [draining] AS d WHERE c.grp = 'job:' || d.id AND d.id = substr(c.grp, 5))

-- name: closing
-- Read the groups that have closed while jobs waited for them.
SELECT grp FROM [closing] ORDER BY grp
