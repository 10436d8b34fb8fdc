-- A record changes in nothing that is derived from it. body, n
UPDATE [jobs] SET body = ? WHERE n = ?
