-- How many records there are by type and status.
SELECT name, status, count FROM [tallies] WHERE kind = 'list' AND count > 0
