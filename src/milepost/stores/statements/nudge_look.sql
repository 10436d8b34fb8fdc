-- Whether a worker is to wake. worker
SELECT 1 FROM [nudges] WHERE worker = ?
