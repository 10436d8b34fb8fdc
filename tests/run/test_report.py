"""The report of a run of which a part cannot be serialised."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from milepost import Job, JobManager, Run
from milepost.core.serialization import from_json, to_json
from milepost.testing import FakeRun, fake_run
from milepost.testing.conformance.concurrency import frequent_switches
from tests.run.resumed_run import resumed
from tests.waiting import until

PAGES = [{"id": "a"}, {"id": "b"}, {"name": "without an id"}, {"id": "d"}]


def test_unreadable_key_keeps_last_cursor(caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    cursors = [from_json(run._report().get("cursors", "{}")) for _ in run.each(PAGES, key="id", resume=True)]
    assert cursors[1:] == [
        {"items": {"n": 1, "of": 4, "key": "a"}},
        {"items": {"n": 2, "of": 4, "key": "b"}},
        {"items": {"n": 2, "of": 4, "key": "b"}},
    ]
    assert "could not report place in the loop 'items': KeyError: 'id'" in caplog.text
    assert [line for line in run.recent_log if "could not report" in line] == [
        "could not report place in the loop 'items': KeyError: 'id'"
    ]


def test_last_item_is_position_if_key_is_unreadable() -> None:
    run = fake_run()
    loop = iter(run.each(PAGES, key="id"))
    names = [run._last_item for _ in loop]
    assert names == [None, "a", "b", "3"]


@pytest.mark.parametrize("total", ["412", object()])
def test_bad_total_does_not_block_other_fields(total: Any) -> None:
    run = fake_run()
    run.progress(0.25, "loading")
    run._report()
    with run.stage("Loading", total=total):
        log_lines = run._report()
    assert (log_lines["progress"], log_lines["message"]) == ("0.25", "loading")
    assert run._report()["message"] == "loading"


def test_too_many_stages_keep_last_report() -> None:
    run = fake_run()
    with run.stage("first"):
        run._report()
    for number in range(9000):
        with run.stage(f"the stage of document {number}", weight=0.01):  # one with a share is kept
            pass
    run.progress(1.0, "done")
    log_lines = run._report()
    assert [stage["name"] for stage in from_json(log_lines["stages"])] == ["first"]
    assert (log_lines["progress"], log_lines["message"]) == ("1.0", "done")


def test_loops_begin_while_the_run_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Regression: the log of the job said "could not report cursors: RuntimeError: dictionary changed size"."""
    for _ in range(20):
        names = [f"loop {number}" for number in range(200)]
        cursors = to_json({name: {"reached": 1} for name in names}, "cursors")
        run = FakeRun(Job.stored("fake", {"type": "test", "created": "0", "attempt": "2", "cursors": cursors}))
        ended = threading.Event()

        def report(run: FakeRun = run, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                run._report()

        heartbeat = threading.Thread(target=report)
        with frequent_switches():
            heartbeat.start()
            for name in names:
                list(run.each([1], stage=name))
            ended.set()
            heartbeat.join()
    assert "could not report" not in caplog.text


def test_item_counts_continue_when_failed_keys_are_full() -> None:
    run = fake_run()
    for number in range(10_000):
        with run.item(f"{number}" + '"' * 190):
            raise ValueError("bad")
    counts = from_json(run._report()["item_counts"])
    assert counts["failed"] == 10_000
    assert 1000 < len(counts["failed_keys"]) < 10_000


def test_unknown_log_level_is_logged_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    run = fake_run()
    levels: list[Any] = ["warning", "ERROR", "bogus", 20, [], "\ud800"]
    for level in levels:
        run.log("a line", level)
    taken = from_json(run._take_lines() or "")["lines"]
    assert [line["level"] for line in taken] == ["warning", "error", "info", "info", "info", "info"]
    message = "run.log: the level 'bogus' is not one of debug, info, warning, error, critical; using info"
    assert (caplog.messages[0], len(caplog.messages)) == (message, 4)


async def test_async_loop_reports_position_while_skipping() -> None:
    reports: list[dict[str, str]] = []

    async def items() -> AsyncIterator[int]:
        for number in range(4):
            reports.append(again._report())
            yield number

    async def begin() -> AsyncIterator[int]:
        for number in range(4):
            yield number

    run = again = fake_run()
    async for number in run.each(begin(), key=lambda number: number + 1, resume=True):
        if number == 3:
            break
    again = resumed(run)
    assert [number async for number in again.each(items(), key=lambda number: number + 1, resume=True)] == [3]
    assert {log_lines["cursors"] for log_lines in reports} == {run._report()["cursors"]}
    ended = resumed(again)
    reports.clear()
    again = ended
    assert [number async for number in ended.each(items(), key=lambda number: number + 1, resume=True)] == []
    assert ended._report()["cursors"] == '{"items":{"n":4,"key":4}}'


def test_unreportable_run_does_not_block_lease_renewal(manager: JobManager) -> None:
    def lease(run: Run) -> int:
        job = manager.get_job(run.job_id)
        assert job is not None
        return int(job.record["lease"])

    with manager.track("good") as good, manager.track("bad") as bad:
        first = lease(good), lease(bad)
        for page in bad.each(PAGES, key="id"):
            if page.get("id") == "d":
                until(lambda: lease(good) > first[0] and lease(bad) > first[1])
    for run in (good, bad):
        job = manager.get_job(run.job_id)
        assert job is not None
        assert job.status == "completed"
