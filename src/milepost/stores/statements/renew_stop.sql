-- A stopping lease is renewed. until, id, token
UPDATE [stops] SET expires = ? WHERE id = ? AND token = ?
