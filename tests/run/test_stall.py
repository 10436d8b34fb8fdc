"""When a run counts as stalled, learned from the pauses of healthy runs; a stall is a flag and never ends a run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from milepost import JobManager, Settings
from milepost.core.errors import InvalidInputError
from milepost.query.filters import parse_filter
from milepost.run.forecast.forecast import Forecast, stall_threshold
from milepost.run.forecast.history import PartProfile, RunHistory, RunProfile, Timeline, read_profiles
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from tests.run.test_eta import BEGIN, Known, report, stage
from tests.waiting import current, until

pytestmark = pytest.mark.timing


def timeline_in(name: str, total: float | None, begins: float = 0.0, gap: float = 0.0) -> Timeline:
    timeline = Timeline(BEGIN)
    timeline.add(report(stage(name, 1, total, begins)), BEGIN + begins)
    timeline.part.gap = gap
    return timeline


def profile(gap: float, total: float | None = 100.0, head: float = 0.0) -> RunProfile:
    return RunProfile(
        head + 50.0, head, (PartProfile("Embed", total, 50.0, tuple(5.0 * n for n in range(1, 11)), gap),)
    )


def test_stall_threshold_shrinks_with_more_runs() -> None:
    timeline = timeline_in("Embed", 100)
    assert stall_threshold(timeline, [profile(30.0)], 60)[0] == 30 * 9
    assert stall_threshold(timeline, [profile(30.0), profile(20.0)] * 6, 60)[0] == 30 * 3.5
    assert stall_threshold(timeline, [profile(1.0)] * 12, 60)[0] == 60


def test_stall_threshold_grows_with_size_and_own_pauses() -> None:
    assert stall_threshold(timeline_in("Embed", 400), [profile(30.0)] * 12, 60)[0] == 30 * 4 * 3.5
    assert stall_threshold(timeline_in("Embed", None, 500.0), [profile(30.0, None, 100.0)] * 12, 60)[0] == 30 * 5 * 3.5
    assert stall_threshold(timeline_in("Embed", 100, gap=100.0), [profile(1.0)] * 12, 60)[0] == 400


def test_stall_threshold_is_long_without_history() -> None:
    assert stall_threshold(timeline_in("Load", 100), [profile(1.0)], 60) == (600, "no earlier runs")
    silent = Timeline(BEGIN)
    silent.add(report(stage("Load", 0, None, 0)), BEGIN)
    assert stall_threshold(silent, [], 60)[0] == 3600


def forecast() -> Forecast:
    history = RunHistory(MemoryStore(blocking=True))
    for _ in range(12):
        history.record_profile("demo", profile(2.0))
    run_sync(history.sync(spacing=0))
    return Forecast(Known(), BEGIN, history, 60.0)


def test_stall_removes_eta_and_is_excluded_from_pace() -> None:
    looking = forecast()
    for second in range(25):
        log_lines = looking.tick(report(stage("Embed", second * 2, 100, 0)), BEGIN + second)
    before = log_lines["eta"]
    assert before != "null"
    for second in range(25, 200):
        log_lines = looking.tick(report(stage("Embed", 48, 100, 0)), BEGIN + second)
    assert log_lines["stalled"] == "No progress for more than 1 min in Embed (longest pause in the last 12 runs: 2.0 s)"
    assert log_lines["eta"] == "null"
    for second in range(200, 205):
        log_lines = looking.tick(report(stage("Embed", 50 + (second - 200) * 2, 100, 0)), BEGIN + second)
    assert log_lines["stalled"] == ""
    assert looking.timeline.part.lost == pytest.approx(176, abs=2)
    assert '"latest":"2027-01-15T08:03' in log_lines["eta"], (
        "about 20 s are left at 3 m 24 s, as if it had not stood still"
    )


def test_frozen_process_is_not_stalled() -> None:
    looking = forecast()
    for second in (0.0, 1.0, 2.0, 3.0, 9000.0, 9001.0):
        log_lines = looking.tick(report(stage("Embed", 10, 100, 0)), BEGIN + second)
    assert not log_lines.get("stalled")


def test_message_is_progress_only_if_nothing_is_counted() -> None:
    timeline = Timeline(BEGIN)
    for second in range(100):
        timeline.add({"progress": "0.0", "message": f"page {second}"}, BEGIN + second)
    assert timeline.silent == 0
    for second in range(100, 200):
        timeline.add({"progress": "0.5", "message": f"retrying {second}"}, BEGIN + second)
    assert timeline.silent == 98


def test_min_silence_is_setting() -> None:
    assert Settings.from_environment({"MILEPOST_STALLED": "5m"}).stalled == 300
    with pytest.raises(InvalidInputError, match=r"^stalled: "):
        Settings(stalled=0)


@pytest.fixture
def options(namespace: str) -> Settings:
    """Return settings with a short stall threshold."""
    return Settings(namespace=namespace, lease=10, sweep=1, heartbeat=0.02, stalled=0.3)


def test_stalled_run_is_flagged_listed_and_continues(manager: JobManager) -> None:
    with manager.track("demo") as run:
        for _ in run.each(range(10), stage="Work"):
            time.sleep(0.01)
    until(lambda: run_sync(read_profiles(manager.store, "demo")))

    def found() -> list[str]:
        return [job.job_id for job in manager.find(parse_filter("is:stalled").query, 10).jobs]

    with manager.track("demo") as run, run.stage("Work", total=10) as work:
        work.advance(4)
        reason = until(lambda: current(manager, run.job_id).stalled)
        assert reason.startswith("No progress for more than ")
        assert " in Work (longest pause in the last run: " in reason
        assert (current(manager, run.job_id).eta, found(), manager.count_jobs(stalled=True)) == (None, [run.job_id], 1)
        assert current(manager, run.job_id).status == "running", "a stall is a flag, and nothing is stopped"

        def moves_on() -> bool:
            work.advance(0.01)
            return (current(manager, run.job_id).to_dict()["stalled"], found(), manager.count_jobs(stalled=True)) == (
                None,
                [],
                0,
            )

        until(moves_on)  # it would stall again if it waited for the test
    events: list[dict[str, Any]] = [
        dict(event.data) for event in run_sync(manager.store.events(run.job_id)) if event.kind == "stalled"
    ]
    assert [data.get("stalled") for data in events][:2] == [reason, None]
    assert current(manager, run.job_id).status == "completed"
