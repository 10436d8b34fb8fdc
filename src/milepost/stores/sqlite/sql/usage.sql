-- The ledger of usage, see `core/ledger.py`. Sums stay below 64 bits: SQLite adds larger ones as floating-point numbers.

-- name: usage_add
-- Add to a sum.
-- Values: book, series, name, amount
INSERT INTO [usage] VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = min(9000000000000000000, amount + excluded.amount)

-- name: usage_get
-- Read a book.
-- Values: book
SELECT series, name, amount FROM [usage] WHERE book = ?

-- name: usage_delete
-- Delete a book.
-- Values: book
DELETE FROM [usage] WHERE book = ?

-- name: usage_delete_days
-- Delete the books of old days.
-- Values: first that is kept
DELETE FROM [usage] WHERE book >= 'day:' AND book < ?
