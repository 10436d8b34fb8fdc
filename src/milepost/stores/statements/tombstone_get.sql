-- The operations that created and removed a record which went a moment ago. id, now
SELECT born, removed FROM [tombstones] WHERE id = ? AND until > ?
