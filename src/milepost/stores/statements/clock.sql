-- The newest event: where the feed ends, and a moment that the clock does not go behind.
SELECT seq, at FROM [events] ORDER BY seq DESC LIMIT 1
