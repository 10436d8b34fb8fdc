"""Every order of the events of a heartbeat keeps its rules, and a turned comparison breaks one.

Times are whole numbers, so that events also happen exactly at the end of a lease or a grace period.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from milepost import Settings
from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.job import Job
from milepost.run import heartbeat_state
from milepost.run.forecast.history import RunHistory
from milepost.run.results import PartWriter
from milepost.stores.ids import Ids
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import WriteResult
from milepost.testing.fakes import FakeRun
from tests.explorer.comparisons import Comparison, comparisons, load

LEASE, GRACE, EPOCH, DEPTH = 4, 1, 1_750_000_000.0, 5
EVENTS = ("report", "answered", "refused", "no reply", "stopped", "wait")
TRIED = ("one.renewed_at", "now > one.overrun_at", "state != 'live'", "one.on_outage == 'stop'", "end <= now")
"""Parts of the comparisons that decide about leases and stops."""


def perform(names: dict[str, Any], events: tuple[str, ...]) -> None:
    """Let events happen to a heartbeat with one run, and assert the rules after each."""
    store = MemoryStore()
    settings = Settings(lease=float(LEASE), grace=float(GRACE))
    state = names["HeartbeatState"](
        settings, RunHistory(store), PartWriter(store, 60.0), Ids(random=bytes, time_ns=lambda: 0)
    )
    run = FakeRun(Job.stored("one", {"type": "test", "attempt": "1"}))
    one = names["ReportedRun"](run, "stop", 0, EPOCH, None)
    state.runs[run.token] = one
    now = renewed = 0
    renew_at, progress, expired = LEASE / RENEWALS_PER_LEASE, 0.0, False
    unanswered: list[str] = []
    overrun_at: int | None = None
    notified = False
    for event in events:
        if event == "wait":
            now += 1
        elif event == "report":
            progress += 0.1
            run.progress(progress)
        else:
            beat = state.next(list(state.runs.values()), now, EPOCH + now)
            ids = [write.change.operation_id for write in beat.writes]
            assert not unanswered or ids == unanswered, "a request without a reply is sent again as it was"
            assert (beat.lease_micros is not None) is (now >= renew_at), "leases are renewed in time, not more often"
            overruns = [write for write in beat.writes if write.change.transition.name == "overrun"]
            if not unanswered:
                assert bool(overruns) is (overrun_at is not None and now > overrun_at), "overrun is written once"
                overrun_at = None if overruns else overrun_at
            if event == "no reply":
                unanswered = ids
            else:
                results = [WriteResult(-1 if event == "refused" else 0, None) for _ in beat.writes]
                lost = state.answered(beat, results, ["stopping" if event == "stopped" else "live"])
                assert bool(lost) is (event == "stopped" and not notified), "a run is notified of its stop once"
                if lost:
                    state.notified(one, now)
                    notified, overrun_at = True, now + GRACE
                unanswered = []
                if beat.lease_micros is not None:
                    renewed, renew_at = now, now + LEASE / RENEWALS_PER_LEASE
        if not expired:
            over, ends = state.silence(now)
            expired = renewed + LEASE <= now
            assert (over == [one]) is expired, "a run stops when its lease was not renewed in time"
            assert ends == ([] if expired else [renewed + LEASE])
        else:
            assert state.silence(now) == ([], []), "a run is stopped once"


def broken(names: dict[str, Any], depth: int) -> tuple[str, ...] | None:
    """Return the events after which a rule does not hold, or None."""
    for events in product(EVENTS, repeat=depth):
        try:
            perform(names, events)
        except (AssertionError, LookupError, TypeError, ValueError):
            return events
    return None


TURNED = [one for one in comparisons(heartbeat_state) if any(part in one.name for part in TRIED)]


def test_every_order_keeps_the_rules() -> None:
    assert broken(load(heartbeat_state), DEPTH) is None


@pytest.mark.slow
@pytest.mark.parametrize("turned", TURNED, ids=lambda turned: turned.name)
def test_turned_comparison_is_found(turned: Comparison) -> None:
    assert broken(turned.load(), DEPTH)
