-- Values in the order of their keys, from a key on. from, now
SELECT key, value, version FROM [shelf] WHERE key >= ? AND (until IS NULL OR until > ?) ORDER BY key
