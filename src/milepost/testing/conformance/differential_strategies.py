"""Hypothesis strategies for the differential test, and the normalisation of what stores may differ in."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import strategies as st

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.operation_ids import LAST_WIDTH
from milepost.stores.protocol import ApplyResult, Select, Store
from milepost.testing.conformance.harness import LONG
from milepost.testing.conformance.transition_matrix import PLANS

IDS = [f"j{n}" for n in range(5)]
QUEUES = ("q", "r")
AHEAD = str(1 << 52)
HOUR = 3600.0
MOMENTS = frozenset(("created", "started", "completed", "updated", "checkpoint_at", "stop_at", "stopped", "suspended"))
DEADLINES = frozenset(("lease", "stale", "not_before", "not_after"))
WAKES = frozenset(("wake_at", "wake_before"))
TOKENS = frozenset(("token", "stop_token"))

WRITES = [name for name in PLANS if name not in ("create", "create (caller)", "track")]
ONWARDS = [name for name in WRITES if name not in ("delete", "self-cancel", "stage")]
SELECTS = [
    Select(),
    Select(stalled=True),
    Select(types=("t",)),
    Select(types=("t", "u"), statuses=("pending", "failed")),
    *(Select(statuses=(status,)) for status in plans.ANY),
    Select(labels=(("owner", "ana"),)),
    Select(labels=(("owner", "ana"), ("tenant", "x"))),
    Select(labels=(("tenant", "x"),), statuses=("pending",)),
]

job_ids = st.sampled_from(IDS)
which_token = st.sampled_from(["newest", "newest", "newest", "older", "forged"])
leases = st.sampled_from([0, LONG])
writes = st.tuples(job_ids, st.sampled_from(WRITES), which_token)
queues_served: st.SearchStrategy[dict[str, int | None]] = st.sampled_from(
    [{"q": None, "r": None}, {"q": None, "r": None}, {"r": None, "q": None}, {"q": None}, {"q": 1, "r": 2}, {"x": None}]
)
new_jobs = st.fixed_dictionaries(
    {
        "run_by": st.sampled_from(["worker", "worker", "worker", "manual", "external"]),
        "type": st.sampled_from(["t", "t", "u"]),
        "queue": st.sampled_from(QUEUES),
        "priority": st.sampled_from(["-1", "0", "0", "2", "10"]),
        "unique_key": st.sampled_from(["", "", "k", "l"]),
        "labels": st.sampled_from(["", "owner=ana", "owner=ana\x1ftenant=x", "owner=bob"]),
        "when": st.sampled_from([{}, {}, {}, {"not_before": "1"}, {"not_before": AHEAD}, {"not_after": "1"}]),
        "extra": st.sampled_from([{}, {}, {"on_lost": "fail"}, {"stale_after": "0"}, {"stale_after": "0", "on_stale": "fail"}]),
    }
)  # fmt: skip


class StoreUnderTest:
    """One of the two stores, with its own tokens and versions."""

    def __init__(self, store: Store, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.store = store
        self.run = run
        self.tokens: dict[str, str] = {}
        self.versions: dict[str, int | None] = {}

    def plain(self, job: Job | None, now: int) -> dict[str, str] | None:
        """Return a record without what the stores may differ in."""
        if job is None:
            return None
        record = dict(job.record)
        for name in TOKENS & set(record):
            self.tokens.setdefault(record[name].partition(":")[2], record[name])
            record[name] = record[name].partition(":")[2]
        for name in MOMENTS & set(record):
            assert int(record[name]) <= now, f"{name} is ahead of the store's clock"
            record[name] = "some moment"
        for name in DEADLINES & set(record):
            record[name] = "past" if int(record[name]) <= now else "ahead"
        for name in WAKES & set(record):  # also the moment of the change itself
            record[name] = "some moment"
        if "runs" in record:  # the times of each run
            record["runs"] = re.sub(r"\d{13,}", "some moment", record["runs"])
        if "caller_ops" in record:  # the second of each request
            record["caller_ops"] = re.sub(rf"(.{{{LAST_WIDTH}}})\d{{10}}", r"\1", record["caller_ops"])
        return record


def plain_answer(side: StoreUnderTest, answer: ApplyResult, now: int) -> object:
    outcomes = [(o.branch, o.repeated, o.key_owner_id, side.plain(o.job, now)) for o in answer.outcomes]
    return outcomes, [(job.job_id, side.plain(job, now)) for job in answer.claimed], answer.next_due
