-- The events of all jobs, oldest first. after, limit
SELECT seq, id, version, kind, at, body FROM [events] WHERE seq > ? ORDER BY seq LIMIT ?
