-- The newest event that no longer has a place in the bounded list of its job. id, kept
SELECT version FROM [events] INDEXED BY [events_kept]
WHERE id = ? AND keep = 1 AND keep > 0 ORDER BY version DESC LIMIT 1 OFFSET ?
