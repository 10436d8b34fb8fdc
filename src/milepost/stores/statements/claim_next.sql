-- The foremost claimable records of a queue, after a place in its order. :queue, :rank, :created, :id, :now, :most
SELECT n, id, created, type, status, lease, token, queue, unique_key, body, rank
FROM [jobs] INDEXED BY [jobs_claimable]
WHERE queue = :queue AND scheduled IS NULL AND (rank, created, id) > (:rank, :created, :id)
    AND (deadline IS NULL OR deadline > :now)
    AND NOT EXISTS (SELECT 1 FROM [stops] WHERE [stops].id = [jobs].id)
    AND NOT EXISTS (SELECT 1 FROM [stops] WHERE [stops].key = [jobs].unique_key AND [stops].key <> '')
ORDER BY rank, created, id LIMIT :most
