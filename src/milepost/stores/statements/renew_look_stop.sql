-- Whether a lease is stopping. id, token
SELECT 1 FROM [stops] WHERE id = ? AND token = ?
