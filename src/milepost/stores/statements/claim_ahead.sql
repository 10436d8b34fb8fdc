-- When the next scheduled record of a queue is due. queue
SELECT scheduled FROM [jobs] INDEXED BY [jobs_scheduled]
WHERE queue = ? AND scheduled IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM [stops] WHERE [stops].id = [jobs].id)
    AND NOT EXISTS (SELECT 1 FROM [stops] WHERE [stops].key = [jobs].unique_key AND [stops].key <> '')
ORDER BY scheduled LIMIT 1
