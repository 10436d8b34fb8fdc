-- The groups that jobs wait for.

-- name: held_by
-- Read the first jobs that a group holds.
-- Values: group, limit
SELECT id FROM [held] WHERE grp = ? ORDER BY created, id LIMIT ?

-- name: held_put
-- Add a job to those that a group holds.
-- Values: group, created, id
INSERT OR REPLACE INTO [held] VALUES (?, ?, ?)

-- name: held_delete
-- Remove a job from those that a group holds.
-- Values: group, created, id
DELETE FROM [held] WHERE grp = ? AND created = ? AND id = ?

-- name: closing
-- Read the groups that have closed while jobs waited for them.
SELECT grp FROM [closing]

-- name: closing_put
-- Add a group to these.
-- Values: group
INSERT OR IGNORE INTO [closing] VALUES (?)

-- name: closing_delete
-- Remove a group from these.
-- Values: group
DELETE FROM [closing] WHERE grp = ?

-- name: removed_members
-- Read the status and the id of removed members of a group, one of each status.
-- Values: group
SELECT status, id FROM [removed_members] WHERE grp = ?

-- name: removed_member_put
-- Keep the status of a removed member of a group, if the `after` of a record names it, or a batch that has not ended.
INSERT OR REPLACE INTO [removed_members] SELECT :group, :status, :id
WHERE EXISTS (SELECT 1 FROM [labels] WHERE pair = ':after=' || :group)
    OR EXISTS (
        SELECT 1 FROM [jobs]
        WHERE id = substr(:group, 7) AND :group LIKE 'group:%' AND type = 'batch' AND ended IS NULL
    )

-- name: removed_member_delete
-- Delete what is kept of the removed members of a group, unless that is needed.
DELETE FROM [removed_members] WHERE grp = :group
    AND NOT EXISTS (SELECT 1 FROM [labels] WHERE pair = ':after=' || :group)
    AND NOT EXISTS (
        SELECT 1 FROM [jobs]
        WHERE id = substr(:group, 7) AND :group LIKE 'group:%' AND type = 'batch' AND ended IS NULL
    )

-- name: member
-- Read a member of a group that ended in a status, or with an empty one a member that is open.
-- Values: group, ended
SELECT id FROM [members] WHERE grp = ? AND ended = ? LIMIT 1

-- name: member_put
-- Add a member to a group.
-- Values: group, ended, id
INSERT OR REPLACE INTO [members] VALUES (?, ?, ?)

-- name: member_delete
-- Remove a member of a group.
-- Values: group, ended, id
DELETE FROM [members] WHERE grp = ? AND ended = ? AND id = ?

-- name: open_members
-- Read the first open members of a group.
-- Values: group, limit
SELECT id FROM [members] WHERE grp = ? AND ended = '' ORDER BY id LIMIT ?

-- name: members_of
-- Read the first members of a group.
-- Values: group, limit
SELECT id FROM [members] WHERE grp = ? ORDER BY id LIMIT ?

-- name: member_counts
-- Read how many members of a group are in each state.
-- Values: group
SELECT status, count FROM [counters] WHERE kind = 'member' AND name = ? AND count > 0
