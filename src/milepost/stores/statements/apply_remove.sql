-- A record goes. n
DELETE FROM [jobs] WHERE n = ?
