-- How many records are flagged.
SELECT count FROM [tallies] WHERE kind = 'stalled' AND name = '' AND status = ''
