-- Forget a number of the namespace. name
DELETE FROM [state] WHERE name = ?
