"""What the command line says of a job that waits for its children, and of a batch, on every kind of store."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from milepost import Jobs, Run
from milepost.core.transitions import plan_mark_stale
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from tests.cli.stores_fixture import StoreFixture
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing

HELD = 2
"""The number of the first page that waits for the test. Both slots of the worker then run such a page, and the rest is pending."""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def jobs(where: StoreFixture, gate: threading.Event) -> Iterator[Jobs]:
    """Yield jobs of which page 0 fails, page 1 completes, and the others wait for the gate, with a worker of two slots."""
    with where.manager() as manager:
        jobs = Jobs(manager.store, options=manager.settings)

        @jobs.job("page")
        def page(run: Run, n: int) -> None:
            if n == 0:
                raise ValueError("no such page")
            while n >= HELD and not gate.wait(0.05):
                run.check()

        @jobs.job("import")
        def import_all(run: Run, pages: int) -> int:
            for n in range(pages):
                run.submit_child(str(n), page, n=n)
            return run.join(errors="collect").counts.failed

        jobs.worker(concurrency=2)
        with jobs.run_workers():
            yield jobs


def test_waiting_parent_shows_how_many_children_have_ended(
    where: StoreFixture, jobs: Jobs, gate: threading.Event
) -> None:
    parent = jobs.submit("import", {"pages": 10}).job_id
    words = "Waiting for its children: 2 of 10 have ended, 1 failed"
    until(lambda: words in where.call("ls", "type:import"))
    first, *_ = where.call("tree", parent).splitlines()
    assert first == f"pending     20%  import  {parent}  {words}"
    (row,) = where.rows("ls", "type:import")
    counts = {"total": 10, "open": 8, "completed": 1, "failed": 1, "cancelled": 0}
    assert row["waiting_for"] == {"code": "after", "params": {"group": f"children:{parent}", **counts}}
    assert (row["status"], row["progress"], row["activity"]) == ("pending", 0.2, words)
    assert where.rows("show", parent)[0]["progress"] == 0.2
    assert "20%" in where.call("show", parent).splitlines()[1]
    watch, terminal = where.start("watch", parent), where.on_terminal("watch", parent)
    assert watch.process.stdout is not None
    assert any(words in line for line in watch.process.stdout)  # the line comes before any child ends
    assert "20%" in terminal.wait_for("2/10 children")
    assert words in terminal.wait_for(words)
    gate.set()
    assert (watch.finish()[0], terminal.finish()) == (0, 0)
    assert where.rows("show", parent)[0]["result"] == 1


def test_waiting_parent_names_question_for_larger_budget(where: StoreFixture) -> None:
    """Regression: only the children said that they wait for the answer, which is to be given to the parent."""
    with where.manager() as manager:
        jobs = Jobs(manager.store, options=manager.settings)

        @jobs.job("page")
        def page(run: Run) -> None:
            run.add_usage(usd=3)
            while not jobs.job_usage(run.job_id.partition(".")[0]).budget["usd"] > 3:
                run.check()
                time.sleep(0.01)

        @jobs.job("book")
        def book(run: Run) -> int:
            run.submit_child("a", page)
            return len(run.join())

        with jobs.run_workers(concurrency=1):
            parent = jobs.submit(book.options(budget={"usd": 1}, on_budget="ask")).job_id
            words = "Waiting for an answer to question budget-1 and for its children: 0 of 1 have ended"
            until(lambda: words in where.call("ls", "type:book"))
            assert where.call("tree", parent).splitlines()[0].endswith(words)
            assert words in where.call("show", parent)
            where.call("answer", parent, "budget-1", '{"usd": 9}')
            assert "answer" not in where.rows("show", parent)[0]["activity"]
            assert jobs.wait(parent, PATIENCE).result == 1


def test_end_of_a_parent_shows_how_many_children_it_left_open(where: StoreFixture, jobs: Jobs) -> None:
    page = jobs.handlers["page"]
    with jobs.track("hasty", job_id="p") as run:
        run.submit_child("late", page, n=HELD)
    assert "with 1 open child" in where.call("watch", "p")
    assert "completed with 1 open child" in where.call("ls", "type:hasty")
    shown = where.call("show", "p")
    assert ["children", "left", "open", "1"] in [line.split() for line in shown.splitlines()]
    assert where.rows("show", "p")[0]["open_children"] == 1


def test_batch_shows_how_many_jobs_have_ended(where: StoreFixture, jobs: Jobs, gate: threading.Event) -> None:
    with jobs.batch("scans", on_error="keep") as batch:
        for n in range(4):
            batch.submit("page", {"n": n})
        until(lambda: "Open: 2 of 4 jobs so far have ended, 1 failed" in where.call("ls", "type:batch"))
        assert where.rows("ls", "type:batch")[0]["progress_known"] is False  # more jobs may come
    (row,) = where.rows("ls", "type:batch")
    assert (row["activity"], row["progress"]) == ("2 of 4 jobs have ended, 1 failed", 0.5)
    assert (row["status"], row["progress_known"]) == ("running", True)
    assert "2 of 4 jobs have ended" in where.call("show", "scans")
    gate.set()
    assert batch.wait(30).status == "failed"
    assert "have ended" not in where.call("ls", "type:batch")


def test_job_that_waits_for_a_stalled_batch_says_so(where: StoreFixture, jobs: Jobs) -> None:
    jobs.create_job("scans", "batch", group="scans", stale_after=0.01)
    jobs.update_job("scans", "running")
    jobs.submit("page", {"n": 1}, after=["group:scans"], labels={"of": "scans"})
    mark = plan_mark_stale(new_operation_id(), error="late", failure="{}", reason="no update for 60 s")

    def is_stalled() -> bool:
        """Flag the batch, unless the sweep of the worker has."""
        run_sync(jobs.manager.store.apply([Write("scans", mark)]))
        batch = jobs.get_job("scans")
        return batch is not None and batch.stalled is not None

    until(is_stalled)
    batch = jobs.get_job("scans")
    assert batch is not None
    (row,) = where.rows("ls", "label.of:scans")
    assert row["waiting_for"] == {"code": "after", "params": {"group": "group:scans", "stalled": batch.stalled}}
    assert row["activity"] == f"Waiting for group scans, which is stalled: {batch.stalled}"
    jobs.cancel_job("scans")


def test_page_of_parents_costs_one_round_trip(where: StoreFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    if where.is_server:
        pytest.skip("the server answers from its own store")
    with where.manager() as manager:
        for name in ("a", "b"):
            manager.create_job(name, "plain")
    asked: list[object] = []
    with where.manager() as manager:
        store = type(manager.store)
        counted = store.member_counts

        async def member_counts(self: object, groups: list[str]) -> object:
            asked.append(groups)
            return await counted(self, groups)

        monkeypatch.setattr(store, "member_counts", member_counts)
        where.call("ls")
        assert asked == []
        jobs = Jobs(manager.store, options=manager.settings)
        with jobs.batch("first"), jobs.batch("second"):
            where.call("ls")
            assert asked == [["group:second", "group:first"]]
