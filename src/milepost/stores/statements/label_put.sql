-- A label of a record. pair, created, id, n
INSERT OR REPLACE INTO [labels] VALUES (?, ?, ?, ?)
