-- A value that has not expired. key, now
SELECT key, value, version FROM [shelf] WHERE key = ? AND (until IS NULL OR until > ?)
