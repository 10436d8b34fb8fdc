-- The tables of one namespace, and the few numbers that belong to it as a whole.
-- A name in [brackets] gets the namespace as its prefix. The comment of a statement lists the values of its `?` in order.

-- name: schema
-- Create the tables, in one transaction.
-- What is derived from a record has a column, see `stores/rows.py`; everything else is in `body`.
-- Triggers keep the counters, so they cannot differ from the rows.
BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS [state] (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO [state] VALUES ('layout', 1), ('fence', 0), ('trimmed', 0), ('kv_version', 0);

CREATE TABLE IF NOT EXISTS [jobs] (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    created INTEGER NOT NULL,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    stalled INTEGER NOT NULL,
    queue TEXT,
    rank INTEGER NOT NULL,
    scheduled INTEGER,
    subqueue TEXT,
    deadline INTEGER,
    lease INTEGER,
    token TEXT,
    slot TEXT,
    worker TEXT,
    stale INTEGER,
    ended INTEGER,
    unique_key TEXT,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS [jobs_id] ON [jobs] (id);
CREATE INDEX IF NOT EXISTS [jobs_created] ON [jobs] (created, id);
CREATE INDEX IF NOT EXISTS [jobs_listed] ON [jobs] (type, status, created, id);
CREATE INDEX IF NOT EXISTS [jobs_stalled] ON [jobs] (created, id) WHERE stalled = 1;
CREATE INDEX IF NOT EXISTS [jobs_claimable] ON [jobs] (queue, rank, created, id)
    WHERE queue IS NOT NULL AND scheduled IS NULL;
CREATE INDEX IF NOT EXISTS [jobs_scheduled] ON [jobs] (queue, scheduled) WHERE scheduled IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_deadline] ON [jobs] (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_lease] ON [jobs] (lease) WHERE lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_slot] ON [jobs] (slot) WHERE slot IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_stale] ON [jobs] (stale) WHERE stale IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_ended] ON [jobs] (ended) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS [jobs_unique_key] ON [jobs] (unique_key, n) WHERE unique_key IS NOT NULL;

CREATE TABLE IF NOT EXISTS [labels] (
    pair TEXT NOT NULL,
    created INTEGER NOT NULL,
    id TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (pair, created, id)
) WITHOUT ROWID;

-- What jobs wait for: the members of each group, with their status once they have ended; the jobs that each group holds; groups that closed while jobs waited, until a sweep finds that none
-- waits; and the last status of removed members, one of each, as long as the `after` of a record names their group.
CREATE TABLE IF NOT EXISTS [members] (
    grp TEXT NOT NULL, ended TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (grp, ended, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [held] (
    grp TEXT NOT NULL, created INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (grp, created, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [closing] (grp TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [removed_members] (
    grp TEXT NOT NULL, status TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (grp, status)
) WITHOUT ROWID;

-- Values that are too large for each read of their record, which has a marker in their place; see `core/record_codec.py`.
CREATE TABLE IF NOT EXISTS [large] (
    id TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (id, name)
) WITHOUT ROWID;

-- Ends of jobs: counts of minutes that are not closed, and the texts of closed minutes (hourly 0) and hours (1); see
-- `core/rollups.py`.
CREATE TABLE IF NOT EXISTS [open_ends] (
    minute INTEGER NOT NULL, series TEXT NOT NULL, metric TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (minute, series, metric)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [rollups] (
    hourly INTEGER NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (hourly, number)
) WITHOUT ROWID;

-- What jobs spend, in millionths; see `core/ledger.py`.
CREATE TABLE IF NOT EXISTS [usage] (
    book TEXT NOT NULL, series TEXT NOT NULL, name TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (book, series, name)
) WITHOUT ROWID;

-- keep: 0 the feed alone, 1 the bounded list of its job, 2 always with its job
CREATE TABLE IF NOT EXISTS [events] (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS [events_kept] ON [events] (id, keep, version) WHERE keep > 0;

CREATE TABLE IF NOT EXISTS [draining] (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    expires INTEGER NOT NULL,
    key TEXT NOT NULL,
    slot TEXT NOT NULL,
    worker TEXT NOT NULL,
    groups TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS [draining_key] ON [draining] (key) WHERE key <> '';

CREATE TABLE IF NOT EXISTS [tombstones] (
    id TEXT PRIMARY KEY, kept TEXT NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [claims] (
    worker TEXT PRIMARY KEY, op TEXT NOT NULL, ids TEXT NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [wakes] (worker TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [limits] (
    key TEXT PRIMARY KEY, most INTEGER, paused INTEGER NOT NULL, per_partition INTEGER,
    rate TEXT, gate INTEGER NOT NULL, opens INTEGER NOT NULL
) WITHOUT ROWID;
-- When subqueues, and queues that have some, had their last turn, as numbers in ascending order; see `subqueues.sql`.
-- `rank` is that of the first claimable record of a subqueue, NULL without one. `ring` is the queue with the limit key.
CREATE TABLE IF NOT EXISTS [subqueues] (
    name TEXT PRIMARY KEY, ring TEXT NOT NULL, rank INTEGER, turn INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS [subqueues_first] ON [subqueues] (ring, rank, turn, name) WHERE rank IS NOT NULL;
CREATE INDEX IF NOT EXISTS [subqueues_turn] ON [subqueues] (turn);
CREATE TABLE IF NOT EXISTS [kv] (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, until INTEGER
) WITHOUT ROWID;

-- kind: list (name is the type), label (name is the pair), member (name is the group, status the state), stalled
CREATE TABLE IF NOT EXISTS [counters] (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, name, status)
) WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS [jobs_come] AFTER INSERT ON [jobs] BEGIN
    INSERT INTO [counters] VALUES ('list', new.type, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [jobs_move] AFTER UPDATE OF type, status ON [jobs]
WHEN old.status <> new.status OR old.type <> new.type BEGIN
    UPDATE [counters] SET count = count - 1 WHERE kind = 'list' AND name = old.type AND status = old.status;
    INSERT INTO [counters] VALUES ('list', new.type, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [jobs_go] AFTER DELETE ON [jobs] BEGIN
    UPDATE [counters] SET count = count - 1 WHERE kind = 'list' AND name = old.type AND status = old.status;
END;

CREATE TRIGGER IF NOT EXISTS [stalled_come] AFTER INSERT ON [jobs] WHEN new.stalled = 1 BEGIN
    INSERT INTO [counters] VALUES ('stalled', '', '', 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [stalled_move] AFTER UPDATE OF stalled ON [jobs] WHEN old.stalled <> new.stalled BEGIN
    INSERT INTO [counters] VALUES ('stalled', '', '', 1) ON CONFLICT DO UPDATE SET count = count + new.stalled - old.stalled;
END;
CREATE TRIGGER IF NOT EXISTS [stalled_go] AFTER DELETE ON [jobs] WHEN old.stalled = 1 BEGIN
    UPDATE [counters] SET count = count - 1 WHERE kind = 'stalled' AND name = '' AND status = '';
END;

CREATE TRIGGER IF NOT EXISTS [labels_come] AFTER INSERT ON [labels] BEGIN
    INSERT INTO [counters] VALUES ('label', new.pair, '', 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [labels_go] AFTER DELETE ON [labels] BEGIN
    UPDATE [counters] SET count = count - 1 WHERE kind = 'label' AND name = old.pair AND status = '';
    DELETE FROM [counters] WHERE kind = 'label' AND name = old.pair AND status = '' AND count <= 0;
END;

CREATE TRIGGER IF NOT EXISTS [members_come] AFTER INSERT ON [members] BEGIN
    INSERT INTO [counters] VALUES ('member', new.grp, new.ended, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [members_go] AFTER DELETE ON [members] BEGIN
    UPDATE [counters] SET count = count - 1 WHERE kind = 'member' AND name = old.grp AND status = old.ended;
    DELETE FROM [counters] WHERE kind = 'member' AND name = old.grp AND status = old.ended AND count <= 0;
END;

COMMIT;

-- name: state_get
-- Read a number of the namespace.
-- Values: name
SELECT value FROM [state] WHERE name = ?

-- name: state_put
-- Store a number of the namespace.
-- Values: name, value
INSERT INTO [state] VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value

-- name: state_delete
-- Delete a number of the namespace.
-- Values: name
DELETE FROM [state] WHERE name = ?
