-- Events that left the list of their job and the feed. id, version, trimmed
DELETE FROM [events] WHERE id = ? AND keep = 1 AND keep > 0 AND version <= ? AND seq <= ?
