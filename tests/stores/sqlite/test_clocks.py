"""Two processes on one file with different clocks: live runs of neither are recovered."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from milepost.testing.conformance.clocks import MICROS, lost, sweep
from milepost.testing.conformance.harness import StoreFixture, token_of, track_job, worker_job


class Process:
    """A store with its own clock, which sweeps and renews the leases of its runs."""

    def __init__(self, path: Path, ahead: float) -> None:
        self.clock = FrozenClock()
        self.clock.advance(ahead)
        self.fixture = StoreFixture(SQLiteStore(path, synchronous="NORMAL", clock=self.clock), self.clock)
        self.leases: list[tuple[str, str]] = []

    def run(self, name: str) -> None:
        """Start a run, whose lease is renewed from now on, in a process that begins with a sweep."""
        run_sync(sweep(self.fixture))
        plan = plans.plan_track(track_job(), new_operation_id(), nonce=new_nonce(), lease=MICROS)
        self.leases.append((name, token_of(run_sync(self.fixture.made(name, plan)))))

    def heartbeat(self) -> set[str]:
        """Let 5 s pass, renew and sweep; the runs whose lease is due."""
        self.clock.advance(5)
        run_sync(self.fixture.store.renew(self.leases, MICROS))
        return lost(run_sync(sweep(self.fixture)))


@pytest.fixture(params=[3600.0, -3600.0, 60.0, -60.0])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Process, Process]:
    """Return a process with a wrong clock and one with a right one."""
    return Process(tmp_path / "jobs.db", request.param), Process(tmp_path / "jobs.db", 0.0)


def test_live_runs_survive_differing_clocks(processes: tuple[Process, Process]) -> None:
    """A process whose clock was an hour off took the living runs of all others on the file."""
    for number, process in enumerate(processes):
        process.run(f"run{number}")
    for _ in range(30):
        assert [process.heartbeat() for process in processes] == [set(), set()]


def test_dead_run_is_recovered_beside_other_clock(processes: tuple[Process, Process]) -> None:
    """A dead run is found within two leases although the processes do not agree about the time."""
    wrong, right = processes
    for number, process in enumerate(processes):
        process.run(f"run{number}")
        process.run(f"dead{number}")
        process.heartbeat()
    for process in processes:
        process.leases.pop()
    found: set[str] = set()
    for _ in range(14):
        found |= wrong.heartbeat() | right.heartbeat()
    assert found == {"dead0", "dead1"}


@pytest.mark.parametrize("renews_last", [False, True])
def test_dead_run_with_wrong_clock_is_recovered(processes: tuple[Process, Process], renews_last: bool) -> None:
    """The runs of a dead process stayed running for as long as its clock had been ahead."""
    wrong, right = processes
    wrong.run("wrong")
    right.run("right")
    for _ in range(8):
        assert (wrong.heartbeat(), right.heartbeat()) == (set(), set())
    if renews_last:
        run_sync(wrong.fixture.store.renew(wrong.leases, MICROS))
    found: set[str] = set()
    for _ in range(14):
        found |= right.heartbeat()
    assert found == {"wrong"}


def test_scheduled_job_starts_by_worker_clock(processes: tuple[Process, Process]) -> None:
    """A job that was due in 5 s started at once because another process on the file had a clock an hour ahead."""
    wrong, right = processes
    wrong.run("wrong")
    wrong.heartbeat()
    due = right.clock() + 5_000_000
    run_sync(right.fixture.create("later", worker_job(not_before=str(due))))
    assert run_sync(right.fixture.claim()) == []
    right.clock.advance(6)
    (job,) = run_sync(right.fixture.claim())
    assert int(job.record["started"]) < due + 2_000_000
