"""Defaults and limits; times are in seconds unless noted."""

LEASE = 30.0
RENEWALS_PER_LEASE = 4
HEARTBEAT = 0.2
SWEEP = 5.0
GRACE = 10.0
JOB_TTL = 604800.0
STALE_AFTER = 600.0
STALLED = 60.0
CRASHES = 3
MAX_ATTEMPTS = 1
ATTEMPTS_MAX = 1000
"""The greatest `max_attempts`. Tasks whose own task queue limits their attempts have it; it is shown as no limit."""
PRIORITY_MAX = 100
LIST_LIMIT = 100
LIST_LIMIT_MAX = 1000
EVENTS_KEPT = 1000
OUTPUT_BYTES = 1024 * 1024
"""The size of the newest output that a job keeps."""
ATTEMPTS_BYTES = 128 * 1024
"""Bytes of crash reports that a record keeps at least, the newest ones."""
TURNS_KEPT = 10_000
"""The subqueues of which a store remembers the last turn; others count as having had none."""
FEED_KEPT = 100_000
FEED_SECONDS = 3600.0
"""Events leave the feed after this time, so that no text of a deleted job is kept. The newest event is always kept."""
CLOCK_LEAD = 30_000_000
"""If the system clock steps back by at most this many microseconds, the store's clock stands still; else it follows."""
RETRY_PAUSE = 0.5
"""The longest pause between two tries of a request during an outage."""
RETRY_BUDGET = 30.0
"""How long one operation is retried before its outcome is reported as unknown."""
