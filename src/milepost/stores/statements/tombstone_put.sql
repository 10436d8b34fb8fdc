-- Remember who created and who removed a record. id, born, removed, until
INSERT OR REPLACE INTO [tombstones] VALUES (?, ?, ?, ?)
