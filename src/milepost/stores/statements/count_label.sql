-- How many records have a label. pair
SELECT count FROM [tallies] WHERE kind = 'label' AND name = ? AND status = ''
