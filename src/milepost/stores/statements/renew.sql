-- A live lease is renewed. until, id, token
UPDATE [jobs] SET lease = ? WHERE id = ? AND token = ?
