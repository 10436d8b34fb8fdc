-- The events of a record that goes, as far as the feed is past them. id, trimmed
DELETE FROM [events] WHERE id = ? AND keep > 0 AND seq <= ?
