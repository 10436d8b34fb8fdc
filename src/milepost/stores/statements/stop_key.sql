-- Whether a stopping lease has a unique key. key
SELECT 1 FROM [stops] WHERE key = ? AND key <> '' LIMIT 1
