-- Remember the answer to a claim. worker, op, ids, until
INSERT OR REPLACE INTO [claims] VALUES (?, ?, ?, ?)
