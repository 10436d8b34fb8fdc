"""Two stores side by side: what a history is made of, and what the two may differ in. For `beside`; knows no history."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import strategies as st

from milepost.core import lifecycle as plans
from milepost.core.job import Job
from milepost.stores.protocol import Applied, Select, Store
from milepost.testing.conformance.cells import PLANS
from milepost.testing.conformance.harness import LONG

IDS = [f"j{n}" for n in range(5)]
QUEUES = ("q", "r")
AHEAD = str(1 << 52)
HOUR = 3600.0
MOMENTS = frozenset(("created", "started", "completed", "updated", "checkpoint_at", "stop_at", "stopped"))
DEADLINES = frozenset(("lease", "stale", "not_before", "not_after"))
TOKENS = frozenset(("token", "stop_token"))

WRITES = [name for name in PLANS if name not in ("create", "create (caller)", "track")]
ONWARDS = [name for name in WRITES if name not in ("delete", "cancel, own", "stage")]
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
births = st.fixed_dictionaries(
    {
        "driver": st.sampled_from(["worker", "worker", "worker", "caller", "engine"]),
        "type": st.sampled_from(["t", "t", "u"]),
        "queue": st.sampled_from(QUEUES),
        "priority": st.sampled_from(["-1", "0", "0", "2", "10"]),
        "unique_key": st.sampled_from(["", "", "k", "l"]),
        "labels": st.sampled_from(["", "owner=ana", "owner=ana\x1ftenant=x", "owner=bob"]),
        "when": st.sampled_from([{}, {}, {}, {"not_before": "1"}, {"not_before": AHEAD}, {"not_after": "1"}]),
        "extra": st.sampled_from([{}, {}, {"on_lost": "fail"}, {"stale_after": "0"}, {"stale_after": "0", "on_stale": "fail"}]),
    }
)  # fmt: skip


class Side:
    """One of the two stores, with what only it knows: its tokens and its versions."""

    def __init__(self, store: Store, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.store = store
        self.run = run
        self.tokens: dict[str, str] = {}
        self.versions: dict[str, int | None] = {}

    def plain(self, job: Job | None, now: int) -> dict[str, str] | None:
        """A record without what the two may differ in."""
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
        return record


def plain_answer(side: Side, answer: Applied, now: int) -> object:
    outcomes = [(o.case, o.repeated, o.holder, side.plain(o.job, now)) for o in answer.outcomes]
    return outcomes, [(job.job_id, side.plain(job, now)) for job in answer.claimed], answer.next_due
