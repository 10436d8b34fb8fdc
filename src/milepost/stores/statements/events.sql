-- The kept events of a job, oldest first. :id, :after, :limit
SELECT version, kind, at, body FROM (
    SELECT version, kind, at, body FROM [events] INDEXED BY [events_kept]
    WHERE id = :id AND keep = 1 AND keep > 0 AND version > :after
    UNION ALL
    SELECT version, kind, at, body FROM [events] INDEXED BY [events_kept]
    WHERE id = :id AND keep = 2 AND keep > 0 AND version > :after
) ORDER BY version LIMIT :limit
