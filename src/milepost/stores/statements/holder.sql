-- The newest record with a unique key. key
SELECT id, status FROM [jobs] WHERE unique_key = ? ORDER BY created DESC, id DESC LIMIT 1
