-- The newest records with one label that match. :pair, and as `select_created`
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [labels] AS p CROSS JOIN [jobs] AS j ON j.n = p.n
WHERE p.pair = :pair AND (p.created, p.id) < (:created, :id) AND p.created >= :since
    AND (:types IS NULL OR j.type IN (SELECT value FROM json_each(:types)))
    AND (:statuses IS NULL OR j.status IN (SELECT value FROM json_each(:statuses)))
    AND (:stalled = 0 OR j.stalled = 1)
    AND (:labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS w WHERE NOT EXISTS (
            SELECT 1 FROM [labels] AS o WHERE o.pair = w.value AND o.created = j.created AND o.id = j.id
        )
    ))
ORDER BY p.created DESC, p.id DESC LIMIT :limit
