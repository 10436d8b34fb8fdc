-- Remember who created a record that goes. id, op, until
INSERT OR REPLACE INTO [tombstones] VALUES (?, ?, ?)
