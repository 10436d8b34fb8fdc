-- Wake a worker. worker, at
INSERT OR REPLACE INTO [nudges] VALUES (?, ?)
