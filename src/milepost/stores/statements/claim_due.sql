-- Scheduled records of a queue become claimable, those first that have waited longest. queue, now, limit
UPDATE [jobs] SET scheduled = NULL WHERE n IN (
    SELECT n FROM [jobs] INDEXED BY [jobs_scheduled] WHERE queue = ? AND scheduled <= ? ORDER BY scheduled LIMIT ?
)
