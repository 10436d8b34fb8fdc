-- Answers to claims that nobody will ask for again. now
DELETE FROM [claims] WHERE until <= ?
