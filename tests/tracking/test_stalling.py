"""When a run is called stalled: learned from the pauses of healthy runs; a flag with a reason, and never an end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from milepost import JobManager, Settings
from milepost.core.errors import InvalidInput
from milepost.stores.driving import drive
from milepost.stores.filters import parse_filter
from milepost.stores.memory import MemoryStore
from milepost.tracking.digests import Digests, read_lessons
from milepost.tracking.outlook import Outlook
from milepost.tracking.stalling import patience, words
from milepost.tracking.timeline import Lesson, PartLesson, Timeline
from tests.tracking.test_eta import BEGIN, Known, report, seen, stage
from tests.waiting import until


def timeline_in(name: str, total: float | None, begins: float = 0.0, gap: float = 0.0) -> Timeline:
    timeline = Timeline(BEGIN)
    timeline.add(report(stage(name, 1, total, begins)), BEGIN + begins)
    timeline.part.gap = gap
    return timeline


def lesson(gap: float, total: float | None = 100.0, head: float = 0.0) -> Lesson:
    return Lesson(head + 50.0, head, (PartLesson("Embed", total, 50.0, tuple(5.0 * n for n in range(1, 11)), gap),))


def test_the_more_runs_are_known_the_less_patience_is_needed() -> None:
    timeline = timeline_in("Embed", 100)
    assert patience(timeline, [lesson(30.0)], 60)[0] == 30 * 9
    assert patience(timeline, [lesson(30.0), lesson(20.0)] * 6, 60)[0] == 30 * 3.5
    assert patience(timeline, [lesson(1.0)] * 12, 60)[0] == 60


def test_a_larger_run_may_pause_longer_and_so_may_one_that_has_done_so() -> None:
    assert patience(timeline_in("Embed", 400), [lesson(30.0)] * 12, 60)[0] == 30 * 4 * 3.5
    assert patience(timeline_in("Embed", None, 500.0), [lesson(30.0, None, 100.0)] * 12, 60)[0] == 30 * 5 * 3.5
    assert patience(timeline_in("Embed", 100, gap=100.0), [lesson(1.0)] * 12, 60)[0] == 400


def test_where_nothing_is_known_patience_is_long() -> None:
    assert patience(timeline_in("Load", 100), [lesson(1.0)], 60) == (600, "nothing is known of earlier runs")
    silent = Timeline(BEGIN)
    silent.add(report(stage("Load", 0, None, 0)), BEGIN)
    assert patience(silent, [], 60)[0] == 3600


def test_durations_in_words() -> None:
    assert [words(seconds) for seconds in (0.0412, 4.56, 48.9, 185, 7805)] == [
        "41 ms",
        "4.5 s",
        "48 s",
        "3 m 05 s",
        "2 h 10 m",
    ]


def outlook() -> Outlook:
    digests = Digests(MemoryStore(blocking=True))
    for _ in range(12):
        digests.learn("demo", lesson(2.0))
    drive(digests.tend(spacing=0))
    return Outlook(Known(), BEGIN, digests, 60.0)


def test_a_stall_takes_the_range_away_and_its_time_is_no_part_of_the_pace() -> None:
    looking = outlook()
    for second in range(25):
        said = looking.look(report(stage("Embed", second * 2, 100, 0)), BEGIN + second)
    before = said["eta"]
    assert before != "null"
    for second in range(25, 200):
        said = looking.look(report(stage("Embed", 48, 100, 0)), BEGIN + second)
    assert (
        said["stalled"]
        == "No progress for more than 1 m 00 s in Embed; the longest pause there in 12 earlier runs was 2 s"
    )
    assert said["eta"] == "null"
    for second in range(200, 205):
        said = looking.look(report(stage("Embed", 50 + (second - 200) * 2, 100, 0)), BEGIN + second)
    assert said["stalled"] == ""
    assert looking.timeline.part.lost == pytest.approx(176, abs=2)
    assert '"latest":"2027-01-15T08:03' in said["eta"], "about 20 s are left at 3 m 24 s, as if it had not stood still"


def test_a_process_that_was_frozen_has_not_stalled() -> None:
    looking = outlook()
    for second in (0.0, 1.0, 2.0, 3.0, 9000.0, 9001.0):
        said = looking.look(report(stage("Embed", 10, 100, 0)), BEGIN + second)
    assert not said.get("stalled")


def test_a_message_is_a_sign_of_life_only_where_nothing_is_counted() -> None:
    timeline = Timeline(BEGIN)
    for second in range(100):
        timeline.add({"progress": "0.0", "message": f"page {second}"}, BEGIN + second)
    assert timeline.silent == 0
    for second in range(100, 200):
        timeline.add({"progress": "0.5", "message": f"retrying {second}"}, BEGIN + second)
    assert timeline.silent == 98


def test_the_least_silence_is_a_setting() -> None:
    assert Settings.from_environment({"MILEPOST_STALLED": "5m"}).stalled == 300
    with pytest.raises(InvalidInput, match="MILEPOST_STALLED"):
        Settings(stalled=0)


@pytest.fixture
def options(namespace: str) -> Settings:
    """Impatient."""
    return Settings(namespace=namespace, lease=10, sweep=1, pulse=0.02, stalled=0.3)


def test_a_stalled_run_is_flagged_found_and_goes_on(manager: JobManager) -> None:
    with manager.track("demo") as run:
        for _ in run.each(range(10), stage="Work"):
            time.sleep(0.01)
    until(lambda: drive(read_lessons(manager.store, "demo")))

    def found() -> list[str]:
        return [job.job_id for job in manager.find(parse_filter("is:stalled").query, 10).jobs]

    with manager.track("demo") as run, run.stage("Work", total=10) as work:
        work.advance(4)
        reason = until(lambda: seen(manager, run.job_id).stalled)
        assert reason.startswith("No progress for more than ")
        assert " in Work; the longest pause there in the run before was " in reason
        assert (seen(manager, run.job_id).eta, found(), manager.count_jobs(stalled=True)) == (None, [run.job_id], 1)
        assert seen(manager, run.job_id).status == "running", "a stall is a flag, and nothing is stopped"
        work.advance(1)
        until(lambda: seen(manager, run.job_id).stalled is None)
        assert (found(), manager.count_jobs(stalled=True)) == ([], 0)
        assert seen(manager, run.job_id).to_dict()["stalled"] is None
        work.advance(5)
    told: list[dict[str, Any]] = [
        dict(event.data) for event in drive(manager.store.events(run.job_id)) if event.kind == "stalled"
    ]
    assert [data.get("stalled") for data in told] == [reason, None]
    assert seen(manager, run.job_id).status == "completed"
