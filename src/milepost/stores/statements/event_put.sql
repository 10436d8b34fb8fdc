-- An event, at the end of the feed. id, version, kind, at, keep, body
INSERT INTO [events] (id, version, kind, at, keep, body) VALUES (?, ?, ?, ?, ?, ?)
