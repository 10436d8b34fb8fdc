-- Nudges of workers that are gone. before
DELETE FROM [nudges] WHERE at < ?
