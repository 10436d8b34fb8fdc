-- The stopping lease of an id. id
SELECT token, expires, key, slot, worker FROM [stops] WHERE id = ?
