-- Records that ended long ago. before, limit
SELECT n, id, created, body FROM [jobs] INDEXED BY [jobs_ended] WHERE ended < ? ORDER BY ended, id LIMIT ?
