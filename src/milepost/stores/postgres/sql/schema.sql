-- The tables of one namespace, which is a schema of the database. A name in [brackets] is an object of that schema.
-- Hot and narrow things are apart from the wide jobs, so that their dead rows are small and vacuumed cheaply.

-- name: schema
-- Create the schema and its objects, in one transaction, or leave them as they are.
BEGIN;
SELECT pg_advisory_xact_lock(hashtextextended('[state]', 0));
CREATE SCHEMA IF NOT EXISTS [schema];

-- Few numbers of the namespace as a whole. Times are microseconds since 1970, as in all tables.
CREATE TABLE IF NOT EXISTS [state] (name text PRIMARY KEY, value bigint);
INSERT INTO [state] VALUES
    ('layout', 1), ('swept', NULL), ('held_since', NULL), ('held_until', NULL), ('trimmed', 0), ('trimmed_xid', 0),
    ('minutes_dropped', NULL), ('hours_dropped', NULL)
ON CONFLICT DO NOTHING;

-- The server's clock, read in this one place.
CREATE OR REPLACE FUNCTION [clock]() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- The same, standing still at the latest time that was seen, unless the clock was set back by more than `lead`.
-- Without FROM, so that the planner replaces its calls; otherwise each statement would parse and plan it again.
CREATE OR REPLACE FUNCTION [now](seen bigint, lead bigint) RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT CASE WHEN seen <= [clock]() + lead THEN greatest(seen, [clock]()) ELSE [clock]() END $$;

-- Fences: lifted to the clock when a process opens the store, so that they also increase after a restore.
CREATE SEQUENCE IF NOT EXISTS [fence];
CREATE SEQUENCE IF NOT EXISTS [kv_version];

-- What is derived from a record has a column, see `stores/rows.py`; everything else is in `body`.
-- `n` is the order of arrival.
CREATE TABLE IF NOT EXISTS [jobs] (
    id text COLLATE "C" PRIMARY KEY,
    n bigint GENERATED ALWAYS AS IDENTITY,
    created bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    stalled boolean NOT NULL,
    queue text COLLATE "C",
    unique_key text COLLATE "C",
    deadline bigint,
    stale bigint,
    ended bigint,
    body text NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS jobs_created ON [jobs] (created, id);
CREATE INDEX IF NOT EXISTS jobs_listed ON [jobs] (type, status, created, id);
CREATE INDEX IF NOT EXISTS jobs_stalled ON [jobs] (created, id) WHERE stalled;
CREATE INDEX IF NOT EXISTS jobs_unique_key ON [jobs] (unique_key, n) WHERE unique_key IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_deadline ON [jobs] (deadline, id) WHERE deadline IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_stale ON [jobs] (stale, id) WHERE stale IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_ended ON [jobs] (ended, id) WHERE ended IS NOT NULL;

-- the jobs of workers that wait. `due` is NULL once a job is claimable, and the largest number for a held one. `subqueue` is
-- the queue from then on, if that is another one.
CREATE TABLE IF NOT EXISTS [ready] (
    id text COLLATE "C" PRIMARY KEY,
    queue text COLLATE "C" NOT NULL,
    rank bigint NOT NULL,
    created bigint NOT NULL,
    due bigint,
    subqueue text COLLATE "C",
    deadline bigint,
    unique_key text COLLATE "C"
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS ready_claimable ON [ready] (queue, rank, created, id) WHERE due IS NULL;
CREATE INDEX IF NOT EXISTS ready_due ON [ready] (queue, due) WHERE due IS NOT NULL;

-- Live leases. No index has `expires`, so that a renewal stays on its page (HOT).
CREATE TABLE IF NOT EXISTS [leases] (
    id text COLLATE "C" PRIMARY KEY,
    token text COLLATE "C" NOT NULL,
    expires bigint NOT NULL,
    slot text COLLATE "C" NOT NULL,
    worker text COLLATE "C" NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX IF NOT EXISTS leases_slot ON [leases] (slot);

-- Checkpoints that were committed with a transaction of the user. They are in the record once the lease has ended.
CREATE TABLE IF NOT EXISTS [checkpoints] (
    id text COLLATE "C" PRIMARY KEY, token text COLLATE "C" NOT NULL, value text NOT NULL, at bigint NOT NULL
) WITH (fillfactor = 50);

-- The leases of runs that are to stop.
CREATE TABLE IF NOT EXISTS [draining] (
    id text COLLATE "C" PRIMARY KEY,
    token text COLLATE "C" NOT NULL,
    expires bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    slot text COLLATE "C" NOT NULL,
    worker text COLLATE "C" NOT NULL,
    groups text[] NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS draining_key ON [draining] (key) WHERE key <> '';
CREATE INDEX IF NOT EXISTS draining_groups ON [draining] USING gin (groups) WHERE groups <> '{}';

CREATE TABLE IF NOT EXISTS [labels] (
    pair text COLLATE "C" NOT NULL, created bigint NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (pair, created, id)
);

-- What jobs wait for: the jobs that each group holds; the members of groups, each with its status once it has ended; and the
-- last status of removed members, one of each, as long as the `after` of a record names their group.
CREATE TABLE IF NOT EXISTS [held] (
    grp text COLLATE "C" NOT NULL, created bigint NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (grp, created, id)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE TABLE IF NOT EXISTS [members] (
    grp text COLLATE "C" NOT NULL, ended text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL, PRIMARY KEY (grp, ended, id)
);
CREATE TABLE IF NOT EXISTS [removed_members] (
    grp text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,
    PRIMARY KEY (grp, status)
);

-- Values that are too large for each read of their record, which has a marker in their place; see `core/record_codec.py`.
CREATE TABLE IF NOT EXISTS [large] (
    id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, value text NOT NULL, PRIMARY KEY (id, name)
);
CREATE TABLE IF NOT EXISTS [tombstones] (id text COLLATE "C" PRIMARY KEY, kept text NOT NULL, until bigint NOT NULL);

-- The feed of all jobs, and the kept events of each. `xid` is the transaction that wrote an event, see `feed.py`.
-- keep: 0 the feed alone, 1 the bounded list of its job, 2 always with its job
CREATE TABLE IF NOT EXISTS [events] (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    kind text NOT NULL,
    at bigint NOT NULL,
    keep smallint NOT NULL,
    body text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX IF NOT EXISTS events_xid ON [events] (xid);
CREATE INDEX IF NOT EXISTS events_kept ON [events] (id, keep, version) WHERE keep > 0;
CREATE INDEX IF NOT EXISTS events_of_feed ON [events] (seq) WHERE keep = 0;

-- Counts, without a row that two transactions would update: changes, and the sums to which the sweep adds them.
-- kind: list (name is the type), label (name is the pair), stalled; or a book of the ledger of usage (name is the series,
-- status the name of the amount, n millionths), see `core/ledger.py`
CREATE TABLE IF NOT EXISTS [deltas] (
    kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL, n bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS [tallies] (
    kind text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL, n bigint NOT NULL,
    PRIMARY KEY (kind, name, status)
);
CREATE OR REPLACE VIEW [counts] AS
    SELECT kind, name, status, sum(n)::bigint AS n FROM (SELECT * FROM [tallies] UNION ALL SELECT * FROM [deltas]) AS added
    GROUP BY kind, name, status;

-- Ends of jobs: counts of minutes that are not closed, and the texts of closed minutes and hours; see `core/rollups.py`.
CREATE TABLE IF NOT EXISTS [open_ends] (
    minute bigint NOT NULL, series text COLLATE "C" NOT NULL, metric text COLLATE "C" NOT NULL, count bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS [rollups] (
    hourly boolean NOT NULL, number bigint NOT NULL, body text NOT NULL, PRIMARY KEY (hourly, number)
);

CREATE TABLE IF NOT EXISTS [claims] (
    worker text COLLATE "C" PRIMARY KEY, op text NOT NULL, ids text[] NOT NULL, until bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS [wakes] (worker text COLLATE "C" PRIMARY KEY, at bigint NOT NULL);
CREATE TABLE IF NOT EXISTS [limits] (
    key text COLLATE "C" PRIMARY KEY, most bigint, paused boolean NOT NULL, per_partition bigint,
    rate text, opens bigint NOT NULL, spacing bigint, tolerance bigint
);
-- Until when no job of a limit key starts. Apart from the limits, whose rows claims lock.
CREATE TABLE IF NOT EXISTS [gates] (key text COLLATE "C" PRIMARY KEY, until bigint NOT NULL);
-- When subqueues, and queues that have some, had their last turn, as numbers in ascending order; see `subqueues.sql`.
-- `rank` is at most that of the first claimable record, NULL without one. `ring` is the queue with the limit key.
CREATE TABLE IF NOT EXISTS [subqueues] (
    name text COLLATE "C" PRIMARY KEY,
    ring text COLLATE "C" GENERATED ALWAYS AS (split_part(name, E'\x1f', 1) || E'\x1f' || split_part(name, E'\x1f', 2)) STORED,
    rank bigint,
    turn bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX IF NOT EXISTS subqueues_first ON [subqueues] (ring, rank, turn, name) WHERE rank IS NOT NULL;
CREATE INDEX IF NOT EXISTS subqueues_turn ON [subqueues] (turn);
-- The subqueues to which records came since the last claim. Rows are only added, so that no transaction waits for another one.
CREATE TABLE IF NOT EXISTS [arrivals] (name text COLLATE "C" NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
CREATE INDEX IF NOT EXISTS arrivals_name ON [arrivals] (name);
CREATE TABLE IF NOT EXISTS [kv] (
    key text COLLATE "C" PRIMARY KEY, value text NOT NULL, version bigint NOT NULL, until bigint
);
COMMIT;

-- name: server
-- Read what the server must be.
SELECT current_setting('server_version_num')::int, current_setting('server_encoding')

-- name: layout
-- Read the layout of the namespace.
SELECT value FROM [state] WHERE name = 'layout'

-- name: lift_fence
-- Lift the fence to the clock, unless it is there already to within a second, which living processes do not exhaust.
SELECT setval('[fence]', [clock]()) FROM [fence] WHERE last_value < [clock]() - 1000000

-- name: now
-- Read the clock.
SELECT [now](%(seen)s, %(lead)s)

-- name: state
-- Read the numbers of the namespace.
SELECT name, value FROM [state]

-- name: sweep_alone
-- Take the right to sweep, unless another transaction has it.
SELECT pg_try_advisory_xact_lock(hashtextextended('[state]', 4))

-- name: state_now
-- Read the numbers of the namespace, and the clock.
SELECT name, value, [now](%(seen)s, %(lead)s) FROM [state]

-- name: state_put
-- Store numbers of the namespace.
UPDATE [state] AS s SET value = new.value FROM unnest(%(names)s::text[], %(values)s::bigint[]) AS new (name, value)
WHERE s.name = new.name
