-- The operation that created a record which went a moment ago. id, now
SELECT op FROM [tombstones] WHERE id = ? AND until > ?
