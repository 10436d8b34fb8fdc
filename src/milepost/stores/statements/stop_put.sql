-- A stopping lease. id, token, expires, key, slot, worker
INSERT OR REPLACE INTO [stops] VALUES (?, ?, ?, ?, ?, ?)
