-- The key-value store.

-- name: kv_get
-- Read a value that has not expired.
-- Values: key, now
SELECT key, value, version FROM [kv] WHERE key = ? AND (until IS NULL OR until > ?)

-- name: kv_scan
-- Read values that have not expired, ordered by key.
-- Values: first key, now
SELECT key, value, version FROM [kv] WHERE key >= ? AND (until IS NULL OR until > ?) ORDER BY key

-- name: kv_put
-- Set a value.
-- Values: key, value, version, until
INSERT OR REPLACE INTO [kv] VALUES (?, ?, ?, ?)

-- name: kv_delete
-- Delete a value.
-- Values: key
DELETE FROM [kv] WHERE key = ?

-- name: kv_delete_between
-- Delete the values of a range of keys.
-- Values: first key, key after the last
DELETE FROM [kv] WHERE key >= ? AND key < ?
