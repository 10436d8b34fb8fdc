-- Records whose last moment to start has passed. now, limit
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_deadline]
WHERE deadline <= ? ORDER BY deadline, id LIMIT ?
