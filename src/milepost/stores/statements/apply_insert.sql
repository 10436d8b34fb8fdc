-- A record comes to be. The columns as `rows.columns` gives them
INSERT INTO [jobs] (
    id, created, body,
    type, status, stalled, queue, rank, scheduled, deadline, lease, token, slot, worker, stale, ended, unique_key
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
