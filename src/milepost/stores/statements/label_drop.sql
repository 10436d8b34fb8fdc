-- A label of a record goes. pair, created, id
DELETE FROM [labels] WHERE pair = ? AND created = ? AND id = ?
