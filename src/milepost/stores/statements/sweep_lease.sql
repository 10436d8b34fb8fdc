-- Leases that ran out. now, limit
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] INDEXED BY [jobs_lease]
WHERE lease <= ? ORDER BY lease, id LIMIT ?
