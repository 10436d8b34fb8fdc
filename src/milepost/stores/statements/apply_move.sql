-- A record changes, and its columns with it. body, the columns as `rows.columns` gives them, n
UPDATE [jobs] SET
    body = ?, type = ?, status = ?, stalled = ?, queue = ?, rank = ?, scheduled = ?, deadline = ?, lease = ?, token = ?,
    slot = ?, worker = ?, stale = ?, ended = ?, unique_key = ?
WHERE n = ?
