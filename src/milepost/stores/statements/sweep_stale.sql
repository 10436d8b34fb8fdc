-- Records of which nothing was heard. now, limit
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_stale]
WHERE stale <= ? ORDER BY stale, id LIMIT ?
