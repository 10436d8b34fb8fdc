-- Put a value. key, value, version, until
INSERT OR REPLACE INTO [shelf] VALUES (?, ?, ?, ?)
