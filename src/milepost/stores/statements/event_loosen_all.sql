-- The events of a record that goes: the feed keeps them for a while. id
UPDATE [events] SET keep = 0 WHERE id = ? AND keep > 0
