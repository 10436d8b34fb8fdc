-- Checkpoints that commit with a transaction of a caller, who may keep it open for minutes.

-- name: checkpoint_put
-- Store the checkpoint of a run, if its lease exists, which is then not taken until the end. Nothing else is locked.
WITH held AS (SELECT id FROM [leases] WHERE id = %(id)s AND token = %(token)s FOR KEY SHARE)
INSERT INTO [checkpoints] SELECT id, %(token)s, %(value)s, [now](%(seen)s, %(lead)s) FROM held
ON CONFLICT (id) DO UPDATE SET token = excluded.token, value = excluded.value, at = excluded.at
RETURNING pg_current_xact_id()::text

-- name: transaction_id
-- Read the number of the transaction.
SELECT pg_current_xact_id()::text

-- name: transaction_status
-- Say whether a transaction is in progress, committed or aborted. Of one from long ago the server does not know it any more.
SELECT CASE WHEN pg_visible_in_snapshot(%(transaction)s::text::xid8, pg_current_snapshot())
    THEN coalesce(pg_xact_status(%(transaction)s::text::xid8), 'committed') ELSE 'in progress'
END

-- name: savepoint
-- Begin what can be undone without the rest of a caller's transaction.
SAVEPOINT milepost

-- name: savepoint_undo
-- Undo what came since.
ROLLBACK TO SAVEPOINT milepost

-- name: savepoint_release
-- End the savepoint.
RELEASE SAVEPOINT milepost
