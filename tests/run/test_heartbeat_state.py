"""The steps of a heartbeat, without threads, clocks and a store: each test passes its own times and replies."""

from __future__ import annotations

import pytest

from milepost import Settings
from milepost.core.defaults import RENEWALS_PER_LEASE
from milepost.core.job import Job
from milepost.run.forecast.history import RunHistory
from milepost.run.heartbeat_state import Beat, HeartbeatState, OnOutage, ReportedRun
from milepost.run.results import PartWriter
from milepost.stores.ids import Ids
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import WriteResult
from milepost.testing.fakes import FakeRun
from tests.collector import collect_within

LEASE, GRACE, START, EPOCH = 30.0, 10.0, 100.0, 1_750_000_000.0
RENEWAL = LEASE / RENEWALS_PER_LEASE


class Steps:
    """A heartbeat state with one run, whose lease was requested at START."""

    def __init__(self, on_outage: OnOutage = "stop") -> None:
        store = MemoryStore()
        history, parts = RunHistory(store), PartWriter(store, 60.0)
        ids = Ids(random=bytes, time_ns=lambda: 0)
        self.state = HeartbeatState(Settings(lease=LEASE, grace=GRACE), history, parts, ids)
        self.run = FakeRun(Job.stored("one", {"type": "test", "attempt": "1"}))
        self.reported = ReportedRun(self.run, on_outage, START, EPOCH, None)
        self.state.runs[self.run.token] = self.reported

    def next(self, now: float) -> Beat:
        """Return the request to send at a time."""
        return self.state.next(list(self.state.runs.values()), now, EPOCH + now - START)

    def answer(self, beat: Beat, lease: str = "live") -> list[tuple[ReportedRun, str, str]]:
        """Accept the writes of a request; return the runs to notify."""
        return self.state.answered(beat, [WriteResult(0, None) for _ in beat.writes], [lease for _ in beat.leases])


@pytest.fixture
def steps() -> Steps:
    """Return a heartbeat state with one run that stops in an outage."""
    return Steps()


def operation_ids(beat: Beat) -> list[str]:
    """Return the ids of the writes of a request."""
    return [write.change.operation_id for write in beat.writes]


def test_unanswered_report_is_repeated_with_the_same_id(steps: Steps) -> None:
    steps.run.progress(0.5)
    first = steps.next(START)
    steps.run.progress(0.6)
    again = steps.next(START + 1)
    assert operation_ids(first) == operation_ids(again) != []
    steps.answer(again)
    after = steps.next(START + 2)
    assert operation_ids(after) not in ([], operation_ids(first))
    steps.answer(after)
    assert operation_ids(steps.next(START + 3)) == []


def test_lease_is_renewed_several_times_while_it_lasts(steps: Steps) -> None:
    renewed = []
    for now in range(int(START), int(START + LEASE)):
        beat = steps.next(float(now))
        if beat.lease_micros is not None:
            renewed.append(now)
        steps.answer(beat)
    assert len(renewed) == pytest.approx(RENEWALS_PER_LEASE, abs=1)
    assert steps.reported.renewed_at == renewed[-1]


def test_unanswered_renewal_does_not_count(steps: Steps) -> None:
    steps.next(START + RENEWAL)
    assert steps.state.silence(START + LEASE - 1) == ([], [START + LEASE])
    assert steps.state.silence(START + LEASE) == ([steps.reported], [])
    assert steps.state.silence(START + LEASE + 1) == ([], []), "a run is stopped once"


def test_run_that_continues_in_an_outage_is_not_stopped() -> None:
    assert Steps("continue").state.silence(START + 10 * LEASE) == ([], [])


def test_answered_renewal_extends_the_lease_from_when_it_was_sent(steps: Steps) -> None:
    steps.answer(steps.next(START + 20))
    assert steps.state.silence(START + LEASE + 1) == ([], [START + 20 + LEASE])


def test_lost_lease_is_reported_until_the_run_is_notified(steps: Steps) -> None:
    assert steps.answer(steps.next(START)) == []
    lost = [(steps.reported, steps.run.token, "lost")]
    assert steps.answer(steps.next(START + 1), "lost") == lost
    assert steps.answer(steps.next(START + 2), "lost") == lost
    steps.state.notified(steps.reported, START + 3)
    assert steps.answer(steps.next(START + 4), "lost") == []


def test_code_that_ignores_its_stop_is_recorded_after_the_grace_period(steps: Steps) -> None:
    steps.answer(steps.next(START))
    steps.state.notified(steps.reported, START)
    assert steps.next(START + GRACE).writes == []
    assert [write.change.transition.name for write in steps.next(START + GRACE + 1).writes] == ["overrun"]


def test_removed_run_returns_what_the_store_may_not_have(steps: Steps) -> None:
    steps.run.progress(0.5)
    sent = steps.next(START)
    steps.run.progress(0.7)
    pending = steps.state.remove(steps.reported, EPOCH + 1)
    assert pending.writes == sent.writes
    assert pending.report["progress"] == "0.7"
    assert steps.next(START + 1).leases == []


def test_runs_begin_while_leases_are_watched(steps: Steps) -> None:
    """Regression: on Python 3.11 the thread that watches the leases could end with "dictionary changed size"."""

    def begin() -> None:
        number = len(steps.state.runs)
        run = FakeRun(Job.stored(f"run {number}", {"type": "test", "attempt": "1"}))
        run.token = f"{number}:a"
        steps.state.runs[run.token] = ReportedRun(run, "stop", START, EPOCH, None)

    for _ in range(50):
        begin()
    collect_within(lambda: steps.state.silence(START), begin)
