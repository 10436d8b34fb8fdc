"""How the children of a run are sent to the store: in groups of a bounded size, and once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from milepost import AsyncRun, InvalidInputError, Jobs, Run
from milepost.run import children as run_children
from milepost.testing.conformance.concurrency import frequent_switches
from tests.waiting import PATIENCE
from tests.worker.squares import Square

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


@pytest.mark.parametrize("is_async", [False, True])
def test_many_children_are_made_in_groups(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    monkeypatch.setattr(run_children, "BUFFERED", 7)
    square = Square(jobs, is_async=is_async)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit(square.parent, numbers=list(range(40))).job_id, 60)
    assert job.result[:2] == [40, sum(n * n for n in range(40))], job.error


def test_size_of_children_that_are_not_made_is_bounded(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_children, "BUFFERED_BYTES", 3000)
    monkeypatch.setattr(run_children, "MAX_WAITING_BYTES", 20_000)
    requests: list[int] = []
    taken = run_children.ChildJobs._next_request

    def next_request(self: run_children.ChildJobs) -> list[tuple[str, dict[str, str]]]:
        found = taken(self)
        requests.append(sum(run_children._size(fields) for _, fields in found))
        return found

    monkeypatch.setattr(run_children.ChildJobs, "_next_request", next_request)

    @jobs.job("part")
    def part(run: Run, text: str) -> int:
        return len(text)

    def add_all(run: Run) -> None:
        for n in range(40):
            run.submit_child(str(n), part, text="x" * 1000)

    @jobs.job("many")
    def many(run: Run) -> int:
        add_all(run)
        return len(run.join())

    @jobs.job("amany")
    async def amany(run: AsyncRun) -> str:
        with pytest.raises(InvalidInputError) as refused:
            add_all(run)  # without an await
        assert 10 < len(await run.join()) < 20
        return str(refused.value)

    with jobs.run_workers():
        assert jobs.wait(jobs.submit(many).job_id, PATIENCE).result == 40
        monkeypatch.setattr(run_children.ChildJobs, "flush_in_thread", lambda self: None)  # a store that is slow
        monkeypatch.setattr(run_children, "FLUSH_INTERVAL", 60)
        error = jobs.wait(jobs.submit(amany).job_id, PATIENCE).result
    assert error.startswith("run.submit_child(): ")
    assert "of children are not yet made, the limit is 20000; await asyncio.sleep(0.1)" in error
    assert 3000 < max(requests) < 5000


def test_code_that_starts_again_reads_its_children_once(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_children, "BUFFERED", 7)
    monkeypatch.setattr(run_children, "FLUSH_INTERVAL", 600)  # else a slow machine sends some early
    asked: list[str] = []
    ask = run_children.ChildJobs._ask

    def record(self: run_children.ChildJobs, request: dict[str, Any]) -> Any:
        asked.append(next(iter(request)))
        return ask(self, request)

    monkeypatch.setattr(run_children.ChildJobs, "_ask", record)
    square = Square(jobs)
    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.submit(square.parent, numbers=list(range(20))).job_id, 60)
    assert job.result[:2] == [20, sum(n * n for n in range(20))], job.error
    assert (asked.count("make"), asked.count("existing"), square.segments) == (3, 1, 2)


def test_threads_of_a_run_lose_no_child(jobs: Jobs) -> None:
    """Regression: two threads that each made the first child made two buffers; that of one was lost with the run."""

    @jobs.job("leaf")
    def leaf(run: Run) -> None:
        pass

    @jobs.job("threads")
    def threads(run: Run) -> None:
        together = threading.Barrier(8)

        def make(number: int) -> None:
            together.wait()
            run.submit_child(str(number), leaf)

        with frequent_switches(), ThreadPoolExecutor(8) as pool:
            list(pool.map(make, range(8)))

    with jobs.run_workers():
        made = [jobs.submit(threads) for _ in range(20)]
        ended = [jobs.wait(job, PATIENCE) for job in made]
    assert [job.error for job in ended if job.error] == []
    assert jobs.count_jobs("leaf") == 8 * len(made)


def test_two_threads_use_a_key_once(jobs: Jobs) -> None:
    """Regression: the second call was accepted, and its parameters ignored."""
    together = threading.Barrier(2)

    @jobs.job("leaf")
    def leaf(run: Run, n: int) -> None:
        pass

    class Slow:
        """A target whose parameters are checked in two threads at once."""

        def child_fields(self, run: Run, /, n: int) -> dict[str, str]:
            together.wait()
            return leaf.options().child_fields(run, n=n)

    @jobs.job("threads")
    def threads(run: Run) -> list[str]:
        def make(number: int) -> str:
            try:
                run.submit_child("same", Slow(), n=number)
            except InvalidInputError as error:
                return error.problem.partition(";")[0]
            return "made"

        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(make, range(2)))

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(threads), PATIENCE)
    assert job.result == ["'same' was used twice", "made"], job.error
