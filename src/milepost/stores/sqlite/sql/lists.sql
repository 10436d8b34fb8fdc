-- Lists, counts and the ledger of usage (`core/ledger.py`). A list starts after the position (:created, :id), newest first,
-- and ends at :since.
-- :types, :statuses and :labels are JSON arrays, or NULL for any. :stalled is 1 for only stalled records, else 0.

-- name: type_filters
-- Part of lists that are not of one type and status.
    AND (:types IS NULL OR j.type IN (SELECT value FROM json_each(:types)))
    AND (:statuses IS NULL OR j.status IN (SELECT value FROM json_each(:statuses)))

-- name: list_filters
-- Part of every list.
    AND (:stalled = 0 OR j.stalled = 1)
    AND (:labels IS NULL OR NOT EXISTS (
        SELECT 1 FROM json_each(:labels) AS w WHERE NOT EXISTS (
            SELECT 1 FROM [labels] AS o WHERE o.pair = w.value AND o.created = j.created AND o.id = j.id
        )
    ))

-- name: select_created
-- Read the newest matching records.
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [jobs] AS j INDEXED BY [jobs_created]
WHERE (j.created, j.id) < (:created, :id) AND j.created >= :since
    --@type_filters
    --@list_filters
ORDER BY j.created DESC, j.id DESC LIMIT :limit

-- name: select_listed
-- Read the newest matching records of one type and status.
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [jobs] AS j INDEXED BY [jobs_listed]
WHERE j.type = :type AND j.status = :status AND (j.created, j.id) < (:created, :id) AND j.created >= :since
    --@list_filters
ORDER BY j.created DESC, j.id DESC LIMIT :limit

-- name: oldest
-- Read the oldest records of one type and status.
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [jobs] AS j INDEXED BY [jobs_listed]
WHERE j.type = :type AND j.status = :status
ORDER BY j.created, j.id LIMIT :limit

-- name: select_labelled
-- Read the newest matching records with the label :pair.
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [labels] AS p CROSS JOIN [jobs] AS j ON j.n = p.n
WHERE p.pair = :pair AND (p.created, p.id) < (:created, :id) AND p.created >= :since
    --@type_filters
    --@list_filters
ORDER BY p.created DESC, p.id DESC LIMIT :limit

-- name: select_stalled
-- Read the newest matching records that are stalled.
SELECT j.n, j.id, j.created, j.type, j.status, j.lease, j.token, j.queue, j.unique_key, j.body
FROM [jobs] AS j INDEXED BY [jobs_stalled]
WHERE j.stalled = 1 AND (j.created, j.id) < (:created, :id) AND j.created >= :since
    --@type_filters
    --@list_filters
ORDER BY j.created DESC, j.id DESC LIMIT :limit

-- name: counts
-- Count the records by type and status.
SELECT name, status, count FROM [counters] WHERE kind = 'list' AND count > 0

-- name: count_label
-- Count the records with a label.
-- Values: pair
SELECT count FROM [counters] WHERE kind = 'label' AND name = ? AND status = ''

-- name: count_stalled
-- Count the stalled records.
SELECT count FROM [counters] WHERE kind = 'stalled' AND name = '' AND status = ''

-- name: usage_add
-- Add to a sum. Sums stay below 64 bits: SQLite adds larger ones as floating-point numbers.
INSERT INTO [usage] VALUES (:book, :series, :name, :amount) ON CONFLICT DO UPDATE SET amount = min(9000000000000000000, amount + excluded.amount)

-- name: usage_beyond
-- Return 1 if a sum would be new in a book that has more than :rows.
SELECT CASE WHEN EXISTS (SELECT 1 FROM [usage] WHERE book = :book AND series = :series AND name = :name) THEN 0
    ELSE EXISTS (SELECT 1 FROM [usage] WHERE book = :book LIMIT 1 OFFSET :rows) END

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
