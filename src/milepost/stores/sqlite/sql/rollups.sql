-- Statistics of ended jobs by minute and hour, see `core/rollups.py`. `hourly` is 1 for hours, 0 for minutes.

-- name: open_ends_get
-- Read the counts of minutes that are not closed.
-- Values: from, until
SELECT minute, series, metric, count FROM [open_ends] WHERE minute >= ? AND minute < ?

-- name: open_ends_add
-- Add to the number of ends in a minute.
-- Values: minute, series, metric, count
INSERT INTO [open_ends] VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count

-- name: open_ends_delete
-- Delete the counts of closed minutes.
-- Values: until
DELETE FROM [open_ends] WHERE minute < ?

-- name: rollups_get
-- Read the texts of minutes or hours.
-- Values: hourly, from
SELECT number, body FROM [rollups] WHERE hourly = ? AND number >= ?

-- name: rollups_one
-- Read the text of one minute or hour.
-- Values: hourly, number
SELECT body FROM [rollups] WHERE hourly = ? AND number = ?

-- name: rollups_put
-- Store the text of a minute or hour.
-- Values: hourly, number, body
INSERT OR REPLACE INTO [rollups] VALUES (?, ?, ?)

-- name: rollups_delete
-- Delete a minute or hour.
-- Values: hourly, number
DELETE FROM [rollups] WHERE hourly = ? AND number = ?

-- name: rollups_sizes
-- Read the sizes of the texts, in bytes.
-- Values: hourly
SELECT number, length(CAST(body AS BLOB)) FROM [rollups] WHERE hourly = ?
