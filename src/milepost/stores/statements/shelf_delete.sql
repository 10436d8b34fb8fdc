-- Take a value away. key
DELETE FROM [shelf] WHERE key = ?
