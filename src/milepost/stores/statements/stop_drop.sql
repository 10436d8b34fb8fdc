-- A stopping lease ends. id
DELETE FROM [stops] WHERE id = ?
