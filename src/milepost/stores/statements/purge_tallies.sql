-- Counters of types that are gone.
DELETE FROM [tallies] WHERE count <= 0
