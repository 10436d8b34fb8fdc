-- A number of the namespace. name
SELECT value FROM [state] WHERE name = ?
