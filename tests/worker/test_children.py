"""Children of a run on every store: made once under their keys, waited for without a worker, retried, and cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from milepost import AsyncJobs, Fail, InvalidInputError, Job, Jobs, Run
from milepost.core.values import MemberCounts
from milepost.run.children import child_id
from tests.waiting import PATIENCE, current, until
from tests.worker import with_children
from tests.worker.squares import Square

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


def children_of(jobs: Jobs, parent: str) -> dict[str, Job]:
    found = jobs.list_jobs(limit=1000)
    return {job.child_key: job for job in found if job.parent_id == parent and job.child_key}


@pytest.mark.parametrize("is_async", [False, True])
def test_parent_waits_for_its_children_without_a_worker(jobs: Jobs, is_async: bool) -> None:
    square = Square(jobs, is_async=is_async)
    job = jobs.submit(square.parent.options(labels={"tenant": "acme"}), numbers=[1, 2, 3])  # type: ignore[call-overload]
    with jobs.run_workers(concurrency=1):
        ended = jobs.wait(job.job_id, PATIENCE)
    assert ended.result == [3, 14, ["n:1", "n:2", "n:3"]], ended.error
    assert (ended.attempt, square.segments) == (1, 2)
    assert jobs.count_jobs("square") == 3
    child = children_of(jobs, job.job_id)["n:2"]
    assert (child.job_id, child.labels) == (child_id(job.job_id, "child", "n:2"), {"tenant": "acme"})


def test_parent_without_children_continues(jobs: Jobs) -> None:
    square = Square(jobs)
    with jobs.run_workers():
        assert jobs.wait(jobs.submit(square.parent, numbers=[]).job_id, PATIENCE).result == [0, 0, []]
    assert square.segments == 1


def test_levels_of_children_end_with_one_slot(jobs: Jobs) -> None:
    """Regression: a parent that waited for its children kept the only slot of the worker, so that none of them ever
    started.
    """

    @jobs.job("level")
    def level(run: Run, depth: int) -> int:
        if not depth:
            return 1
        for name in "ab":
            run.submit_child(name, level, depth=depth - 1)
        children = run.join()
        return sum(children.result(name) for name in "ab")

    with jobs.run_workers(concurrency=1):
        assert jobs.wait(jobs.submit(level, depth=3).job_id, 60).result == 8


def test_failed_child_fails_the_parent_and_is_retried_by_its_next_attempt(jobs: Jobs) -> None:
    fails = threading.Event()
    fails.set()
    ran: list[str] = []

    @jobs.job("part")
    def part(run: Run, name: str) -> str:
        ran.append(name)
        if name == "bad" and fails.is_set():
            raise Fail("no such part")
        return name

    @jobs.job("whole", max_attempts=2, backoff=lambda attempt: 0.05)
    def whole(run: Run) -> list[str]:
        if run.attempt == 2:
            fails.clear()
        for name in ("good", "bad"):
            run.submit_child(name, part, name=name)
        children = run.join()
        return [children.result("good"), children.result("bad")]

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(whole).job_id, PATIENCE)
    assert job.result == ["good", "bad"]
    assert job.attempt == 2
    assert any("1 of 2 children did not complete: bad (no such part)" in str(e.data) for e in jobs.events(job.job_id))
    assert sorted(ran) == ["bad", "bad", "good"]


@pytest.mark.parametrize("is_async", [False, True])
def test_jobs_of_callers_are_no_children(jobs: Jobs, is_async: bool) -> None:
    """Such a job kept a parent waiting for ever, or failed it."""
    square = Square(jobs, is_async=is_async)
    job = jobs.submit(square.parent, numbers=[1, 2, 3])
    jobs.create_job("waits", "elsewhere", parent_id=job.job_id)
    jobs.create_job("bad", "elsewhere", parent_id=job.job_id)
    jobs.cancel_job("bad")
    with jobs.run_workers(concurrency=1):
        ended = jobs.wait(job.job_id, PATIENCE)
    assert ended.result == [3, 14, ["n:1", "n:2", "n:3"]], ended.error


def test_child_of_a_key_that_is_no_longer_used_is_ignored(jobs: Jobs) -> None:
    @jobs.job("part")
    def part(run: Run, name: str) -> str:
        if name == "old":
            raise Fail("no such part")
        return name

    @jobs.job("whole", max_attempts=2, backoff=lambda attempt: 0.05)
    def whole(run: Run) -> Any:
        name = "old" if run.attempt == 1 else "new"
        run.submit_child(name, part, name=name)
        children = run.join()
        return [children.counts.to_dict(), [child.child_key for child in children]]

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(whole).job_id, PATIENCE)
    assert job.result == [MemberCounts(total=1, completed=1).to_dict(), ["new"]], job.error


def test_failed_children_are_collected_if_asked_for(jobs: Jobs) -> None:
    @jobs.job("part")
    def part(run: Run, name: str) -> str:
        if name == "bad":
            raise Fail("no such part")
        return name

    @jobs.job("whole")
    def whole(run: Run) -> Any:
        for name in ("good", "bad"):
            run.submit_child(name, part, name=name)
        children = run.join(errors="collect")
        with pytest.raises(ValueError, match="has no result: no such part"):
            children.result("bad")
        with pytest.raises(ValueError, match="not found"):
            children.job("none")
        return children.counts.to_dict()

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(whole).job_id, PATIENCE)
    assert job.result == MemberCounts(total=2, completed=1, failed=1).to_dict(), job.error


def test_cancel_of_a_parent_cancels_its_children(jobs: Jobs) -> None:
    @jobs.job("slow")
    def slow(run: Run) -> None:
        while True:
            run.check()
            run._wait_in_place(0.01)

    @jobs.job("whole")
    def whole(run: Run) -> None:
        for name in "abc":
            run.submit_child(name, slow)
        run.join()

    with jobs.run_workers(concurrency=8):
        parent = jobs.submit(whole).job_id
        kept = jobs.submit(whole.options(children="keep")).job_id
        until(lambda: len(children_of(jobs, parent)) == len(children_of(jobs, kept)) == 3)
        until(lambda: current(jobs, parent).status == current(jobs, kept).status == "pending")
        jobs.cancel_job(parent)
        jobs.cancel_job(kept)
        assert {child.status.value for child in children_of(jobs, parent).values()} == {"cancelled"}
        assert "cancelled" not in {child.status.value for child in children_of(jobs, kept).values()}
        for child in children_of(jobs, kept).values():
            jobs.cancel_job(child.job_id)


@pytest.mark.parametrize("is_async", [False, True])
def test_tracked_block_makes_its_children_before_it_ends(jobs: Jobs, is_async: bool) -> None:
    """Those of the last second were lost."""
    Square(jobs)
    handler = jobs.handlers["square"]
    if is_async:

        async def main() -> None:
            own = AsyncJobs(jobs.manager.store.with_blocking(blocking=False))
            async with own.track("block", job_id="p") as run:
                run.submit_child("a", handler, n=3)
            await own.close()

        asyncio.run(main())
    else:
        with jobs.track("block", job_id="p") as run:
            run.submit_child("a", handler, n=3)
    assert (current(jobs, "p").status, current(jobs, "p").open_children) == ("completed", 1)
    assert list(children_of(jobs, "p")) == ["a"]


def test_wrong_uses_are_refused(jobs: Jobs) -> None:
    square = Square(jobs)
    handler = jobs.handlers["square"]
    seen: list[str] = []

    @jobs.job("wrong")
    def wrong(run: Run) -> None:
        run.submit_child("a", handler, n=1)
        calls: list[Any] = [
            lambda: run.submit_child("a", handler, n=2),
            lambda: run.submit_child("", handler, n=2),
            lambda: run.submit_child("b", handler, n="x"),
            lambda: run.submit_child("b", "square", n=1),  # type: ignore[arg-type]
            lambda: run.submit_child("b", handler.options(job_id="mine"), n=1),
            lambda: run.submit_child("b", handler.options(after=[f"children:{run.job_id}"]), n=1),
            lambda: run.join(errors="ignore"),  # type: ignore[arg-type]
        ]
        for call in calls:
            with pytest.raises(InvalidInputError) as error:
                call()
            seen.append(str(error.value))
        thread = threading.Thread(target=lambda: seen.append(_error_of(run.join)))
        thread.start()
        thread.join()

    assert square.segments == 0
    with jobs.run_workers():
        job = jobs.wait(jobs.submit(wrong).job_id, PATIENCE)
    assert job.status == "completed", job.error
    assert len(seen) == 8
    for text, start in zip(
        seen, ("key: 'a' was used twice", "key: ''", "n: ", "handler: 'square' is not a handler", "job_id: a child is found",
               "after: ", "errors: 'ignore' must be", "run.join(): cannot suspend the job"), strict=True
    ):  # fmt: skip
        assert text.startswith(start)


def _error_of(call: Any) -> str:
    try:
        call()
    except InvalidInputError as error:
        return str(error)
    return "no error"


def test_child_with_other_parameters_is_refused(jobs: Jobs) -> None:
    square = Square(jobs)
    handler = jobs.handlers["square"]

    @jobs.job("fickle")
    def fickle(run: Run) -> None:
        square.segments += 1
        run.submit_child("a", handler, n=square.segments)
        run.join()

    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.submit(fickle).job_id, PATIENCE)
    assert job.status == "failed"
    assert "child 'a': was made with" in (job.error or "")
    assert '"n":1' in (job.error or "")


def test_retry_from_start_makes_new_children(jobs: Jobs) -> None:
    fails = threading.Event()
    fails.set()

    @jobs.job("part")
    def part(run: Run) -> str:
        if fails.is_set():
            raise Fail("no")
        return "done"

    @jobs.job("whole")
    def whole(run: Run) -> str:
        run.submit_child("a", part)
        result: str = run.join().result("a")
        return result

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(whole).job_id, PATIENCE)
        assert job.status == "failed"
        fails.clear()
        jobs.retry_job(job.job_id, from_start=True)
        job = jobs.wait(job.job_id, PATIENCE)
    assert job.result == "done", job.error
    assert jobs.count_jobs("part") == 2
    assert current(jobs, child_id(job.job_id, "child", "a", "1")).result == "done"


@pytest.mark.parametrize("name", ["parent.child", "aparent.child"])
def test_children_of_a_handler_in_a_child_process(sqlite_url: str, name: str) -> None:
    jobs = Jobs(sqlite_url)
    for handler in with_children.jobs.handlers.values():
        jobs.handlers.add(handler)
    with jobs.run_workers(concurrency=2):
        job = jobs.wait(jobs.submit(name, {}).job_id, 60)
    assert job.result == [2, "a"], job.error
    jobs.close()


def test_ids_of_children_are_refused_from_callers(jobs: Jobs) -> None:
    Square(jobs)
    for make in (
        lambda: jobs.create_job(child_id("parent", "child", "a")),
        lambda: jobs.submit("square", {"n": 1}, job_id=child_id("p" * 50, "child", "a")),
    ):
        with pytest.raises(InvalidInputError, match=r"job_id: .* has the form of the id of a child"):
            make()
    assert jobs.count_jobs() == 0
