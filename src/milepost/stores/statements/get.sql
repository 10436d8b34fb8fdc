-- One record. id
SELECT n, id, created, type, status, lease, token, queue, unique_key, body FROM [jobs] WHERE id = ?
