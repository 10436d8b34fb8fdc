-- The newest records that are flagged and match. As `select_created`
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [jobs] AS j INDEXED BY [jobs_stalled]
WHERE j.stalled = 1 AND (j.created, j.id) < (:created, :id) AND j.created >= :since
    AND (:types IS NULL OR j.type IN (SELECT value FROM json_each(:types)))
    AND (:statuses IS NULL OR j.status IN (SELECT value FROM json_each(:statuses)))
    AND (:stalled = 0 OR j.stalled = 1)
    AND (:labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS w WHERE NOT EXISTS (
            SELECT 1 FROM [labels] AS o WHERE o.pair = w.value AND o.created = j.created AND o.id = j.id
        )
    ))
ORDER BY j.created DESC, j.id DESC LIMIT :limit
