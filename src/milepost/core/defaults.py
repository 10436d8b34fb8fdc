"""The defaults of the lifecycle, in seconds unless said otherwise. Owns numbers; knows nothing."""

LEASE = 30.0
RENEWALS_PER_LEASE = 4
PULSE = 0.2
SWEEP = 5.0
GRACE = 10.0
JOB_TTL = 604800.0
STALE_AFTER = 600.0
STALLED = 60.0
CRASHES = 3
MAX_ATTEMPTS = 1
PRIORITY_MAX = 100
LIST_LIMIT = 100
LIST_LIMIT_MAX = 1000
EVENTS_KEPT = 1000
ATTEMPTS_BYTES = 128 * 1024
"""Bytes of the dossiers of failed attempts that a record keeps at least, the newest ones."""
FEED_KEPT = 100_000
RETRY_BUDGET = 30.0
"""One operation is repeated for at most this long; then its outcome is unknown."""
