-- Whether a lease is live. id, token
SELECT 1 FROM [jobs] WHERE id = ? AND token = ?
