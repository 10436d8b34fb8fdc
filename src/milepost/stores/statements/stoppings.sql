-- All stopping leases.
SELECT id, token, expires FROM [stops]
