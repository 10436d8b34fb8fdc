-- Events that left the list of their job, and go when they leave the feed. id, version
UPDATE [events] SET keep = 0 WHERE id = ? AND keep = 1 AND keep > 0 AND version <= ?
