-- A worker is awake. worker
DELETE FROM [nudges] WHERE worker = ?
