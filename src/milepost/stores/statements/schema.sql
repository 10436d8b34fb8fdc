-- The tables of one namespace. A name in [brackets] gets the namespace; what is derived from a record is in columns
-- (see `sqlite/rows.py`), the rest in `body`. The triggers keep the counters, so that they cannot differ from the rows.
BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS [state] (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO [state] VALUES ('layout', 1), ('fence', 0), ('trimmed', 0), ('shelf', 0);

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
CREATE INDEX IF NOT EXISTS [jobs_unique_key] ON [jobs] (unique_key, created, id) WHERE unique_key IS NOT NULL;

CREATE TABLE IF NOT EXISTS [labels] (
    pair TEXT NOT NULL,
    created INTEGER NOT NULL,
    id TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (pair, created, id)
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

CREATE TABLE IF NOT EXISTS [stops] (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    expires INTEGER NOT NULL,
    key TEXT NOT NULL,
    slot TEXT NOT NULL,
    worker TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS [stops_key] ON [stops] (key) WHERE key <> '';

CREATE TABLE IF NOT EXISTS [tombstones] (
    id TEXT PRIMARY KEY, born TEXT NOT NULL, removed TEXT NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [claims] (
    worker TEXT PRIMARY KEY, op TEXT NOT NULL, ids TEXT NOT NULL, until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [nudges] (worker TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [limits] (queue TEXT PRIMARY KEY, most INTEGER, paused INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS [shelf] (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, until INTEGER
) WITHOUT ROWID;

-- kind: list (name is the type), label (name is the pair), stalled
CREATE TABLE IF NOT EXISTS [tallies] (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, name, status)
) WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS [jobs_come] AFTER INSERT ON [jobs] BEGIN
    INSERT INTO [tallies] VALUES ('list', new.type, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [jobs_move] AFTER UPDATE OF type, status ON [jobs]
WHEN old.status <> new.status OR old.type <> new.type BEGIN
    UPDATE [tallies] SET count = count - 1 WHERE kind = 'list' AND name = old.type AND status = old.status;
    INSERT INTO [tallies] VALUES ('list', new.type, new.status, 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [jobs_go] AFTER DELETE ON [jobs] BEGIN
    UPDATE [tallies] SET count = count - 1 WHERE kind = 'list' AND name = old.type AND status = old.status;
END;

CREATE TRIGGER IF NOT EXISTS [stalled_come] AFTER INSERT ON [jobs] WHEN new.stalled = 1 BEGIN
    INSERT INTO [tallies] VALUES ('stalled', '', '', 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [stalled_move] AFTER UPDATE OF stalled ON [jobs] WHEN old.stalled <> new.stalled BEGIN
    INSERT INTO [tallies] VALUES ('stalled', '', '', 1) ON CONFLICT DO UPDATE SET count = count + new.stalled - old.stalled;
END;
CREATE TRIGGER IF NOT EXISTS [stalled_go] AFTER DELETE ON [jobs] WHEN old.stalled = 1 BEGIN
    UPDATE [tallies] SET count = count - 1 WHERE kind = 'stalled' AND name = '' AND status = '';
END;

CREATE TRIGGER IF NOT EXISTS [labels_come] AFTER INSERT ON [labels] BEGIN
    INSERT INTO [tallies] VALUES ('label', new.pair, '', 1) ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER IF NOT EXISTS [labels_go] AFTER DELETE ON [labels] BEGIN
    UPDATE [tallies] SET count = count - 1 WHERE kind = 'label' AND name = old.pair AND status = '';
    DELETE FROM [tallies] WHERE kind = 'label' AND name = old.pair AND status = '' AND count <= 0;
END;

COMMIT;
