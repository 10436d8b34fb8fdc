-- Stopping leases that ran out. now, limit
SELECT id, token FROM [stops] WHERE expires <= ? LIMIT ?
