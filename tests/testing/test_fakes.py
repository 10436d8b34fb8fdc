"""The fakes for users' tests: a run for job code, managers as fixtures, a clock that stands still."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from milepost.core.errors import InvalidInputError, JobCancelled
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock, fake_run


def reindex(run: Any, index: str, pages: int = 100) -> dict[str, Any]:
    """Count items, as a handler of a user does."""
    start = run.last_checkpoint or 0
    for page in run.each(range(start, pages)):
        if page % 10 == 9:
            run.checkpoint(page + 1)
    return {"index": index, "from": start}


def test_handler_is_callable_as_plain_function() -> None:
    run = fake_run(last_checkpoint=40)
    assert reindex(run, index="docs") == {"index": "docs", "from": 40}
    assert run.progress_seen[-1] == 1.0
    assert run.progress_seen == sorted(run.progress_seen)
    assert run.checkpoints == [50, 60, 70, 80, 90, 100]


def test_fake_run_counts_loop_and_shows_ledger() -> None:
    run = fake_run(metadata={"folder": "x"}, labels={"owner": "ana"})
    seen = []
    for page in run.each(["a", "b", "c"]):
        with run.item(page):
            if page == "b":
                raise RuntimeError("bad page")
            seen.append(page)
    assert seen == ["a", "c"]
    assert (run.metadata, run.labels, run.progress_seen[-1]) == ({"folder": "x"}, {"owner": "ana"}, 1.0)
    assert run.ledger.failed_keys == ["b"]


def test_fake_run_with_only_processes_those_items() -> None:
    run = fake_run(only=["b"])
    items = [{"id": name} for name in "abc"]
    assert [item["id"] for item in run.each(items, key="id")] == ["b"]


def test_fake_run_cancel_stops_code() -> None:
    run = fake_run()
    done = []

    def handler() -> None:
        for item in run.each(range(10)):
            done.append(item)
            if item == 3:
                run.cancel("enough")

    with pytest.raises(JobCancelled, match="enough"):
        handler()
    assert done == [0, 1, 2, 3]
    assert run.cancelled
    with pytest.raises(JobCancelled):
        run.checkpoint(1)
    assert run.checkpoints == [1], "a checkpoint is taken before its cancel point"


def test_fake_run_rejects_what_run_rejects() -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match="checkpoint"):
        run.checkpoint(object())
    run.progress(float("nan"))
    run.log("one\ntwo")
    assert run.progress_seen[-1] == 0.0
    assert run.log_lines == ["one", "two"]


def test_next_attempt_continues_where_fake_run_stopped() -> None:
    def handler(run: Any, seen: list[Any], stop_at: int) -> dict[str, int]:
        for page in run.each(range(5), resume=True, stage="pages"):
            seen.append(page)
            if page == stop_at:
                run.cancel()
        lengths = run.map(lambda text: len(text), ["a", "bb"], stage="lengths")
        state = run.state(words=0)
        for word in run.each(["x", "y", "z"], state=state, stage="words"):
            state.words += 1
            run.heartbeat()
            if word == "y" and stop_at == 7:
                raise OSError
        return {"words": state.words, "lengths": sum(lengths)}

    first, pages = fake_run(job_id="one"), list[Any]()
    with pytest.raises(JobCancelled):
        handler(first, pages, stop_at=2)
    second = first.next_attempt()
    assert (second.job_id, second.attempt) == ("one", 2)
    with pytest.raises(OSError):
        handler(second, pages, stop_at=7)
    third = second.next_attempt()
    assert handler(third, pages, stop_at=9) == {"words": 3, "lengths": 3}
    assert pages == [0, 1, 2, 3, 4], "the cancel came after item 2 was done"


def test_next_attempt_has_kept_steps() -> None:
    run = fake_run()
    assert run.step("invoice", lambda: 5) == 5
    assert run.next_attempt().next_attempt().step("invoice", lambda: 6) == 5


def test_next_attempt_has_slept() -> None:
    """Regression: it slept again, and the seconds of a sleep were a few milliseconds short on a busy machine."""
    run = fake_run()
    run.sleep("cool-down", "6h")
    run.sleep("short", 0.123456)
    assert run.slept == [21600, 0.123456]
    again = run.next_attempt()
    again.sleep("cool-down", "6h")
    assert again.slept == []


def test_next_attempt_has_last_checkpoint() -> None:
    run = fake_run(last_checkpoint=40)
    assert run.next_attempt().last_checkpoint == 40
    run.checkpoint(60)
    assert run.next_attempt().next_attempt().last_checkpoint == 60


def test_fake_run_works_in_async_code() -> None:
    async def handler(run: Any) -> None:
        async for item in run.each([1, 2]):
            await run.acheckpoint(item)

    run = fake_run()
    asyncio.run(handler(run))
    assert run.checkpoints == [1, 2]


def test_frozen_clock_moves_only_when_advanced() -> None:
    clock = FrozenClock(5_000_000)
    store = MemoryStore(clock=clock)
    assert [run_sync(store.now()), run_sync(store.now())] == [5_000_000, 5_000_000]
    assert clock.advance(1.5) == 6_500_000 == run_sync(store.now())
    clock.move_to(1)
    assert run_sync(store.now()) == 6_500_000, "the clock of a store never goes back"


USERS_TESTS = """
import pytest

from milepost import Jobs

pytest_plugins = ["milepost.testing.plugin"]


def test_a_manager(job_manager):
    job = job_manager.create_job(job_type="ingestion")
    assert [j.job_id for j in job_manager.list_jobs()] == [job.job_id]


def test_each_test_has_its_own(job_manager):
    assert job_manager.list_jobs() == []
    with job_manager.track("ingestion") as run:
        run.progress(0.5)
    assert job_manager.list_jobs()[0].progress == 1.0


application = Jobs("sqlite:///not-made.db")


@application.job
def shout(run, text: str) -> str:
    return text.upper()


def test_jobs(jobs, frozen_clock):
    @jobs.job("double")
    def double(run, number: int) -> int:
        return 2 * number

    job = jobs.submit(double.options(delay="2h"), number=4)
    assert jobs.drain() == []
    frozen_clock.advance("2h")
    assert [ran.result for ran in jobs.drain()] == [8]
    assert jobs.assert_submitted(double, number=4).job_id == job.job_id


@pytest.fixture
def milepost_app():
    return application


def test_own_application(jobs):
    application.submit(shout, text="a")
    assert [ran.result for ran in jobs.drain()] == ["A"]


def test_a_run(fake_run):
    fake_run.progress(0.5)
    assert fake_run.progress_seen[-1] == 0.5
"""


def test_plugin_fixtures_work_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TESTS)
    options = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run([*options, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_testing_package_imports_without_pytest() -> None:
    code = "import sys, milepost.testing; assert 'pytest' not in sys.modules and 'hypothesis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
