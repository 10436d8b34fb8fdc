-- Limit or pause a queue. queue, most, paused
INSERT OR REPLACE INTO [limits] VALUES (?, ?, ?)
