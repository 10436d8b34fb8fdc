"""Children that a store does not make, on every store: what the run reads, and that nothing is left."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from milepost import AsyncRun, InvalidInputError, Jobs, Run
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


@pytest.fixture
def jobs(idle_jobs: Jobs) -> Jobs:
    return idle_jobs


def child(jobs: Jobs) -> Any:
    """Return a handler for children."""

    @jobs.job("leaf")
    def leaf(run: Run) -> None: ...

    return leaf


def children_of(jobs: Jobs, parent: str) -> list[str]:
    return [str(job.child_key) for job in jobs.list_jobs(limit=1000) if job.parent_id == parent]


def test_child_cannot_wait_for_a_group_of_its_parent(jobs: Jobs) -> None:
    """Both waited for ever."""

    leaf = child(jobs)

    @jobs.job("parent", max_attempts=1)
    def parent(run: Run) -> None:
        run.submit_child("a", leaf.options(after=["group:g"]))
        run.join()

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(parent.options(group="g")), timeout=PATIENCE)
    assert job.error == "after: child 'a': 'group:g' would never close: a parent of the job is in it; omit it"
    assert children_of(jobs, job.job_id) == []


def test_child_cannot_wait_for_a_parent_through_another_job(jobs: Jobs) -> None:
    """All three waited for ever."""

    leaf = child(jobs)

    @jobs.job("middle")
    def middle(run: Run) -> None:
        run.submit_child("b", leaf.options(after=["job:other"]))
        run.join()

    @jobs.job("top")
    def top(run: Run) -> None:
        run.submit_child("a", middle)
        run.join()

    jobs.create_job("first")
    jobs.submit(top.options(job_id="top", after=["job:first"]))
    jobs.submit(leaf.options(job_id="other", after=["job:top"]))
    jobs.update_job("first", "running")
    jobs.update_job("first", "completed")
    with jobs.run_workers(concurrency=1):
        job = jobs.wait("top", timeout=PATIENCE)
    text = "after: child 'b': 'job:other' would never close: job other waits for job:top, and a parent of the job is in it; omit it"
    assert text in str(job.error)


@pytest.mark.parametrize(
    ("after", "group", "text"),
    [
        ("job:missing", None, "after: child 'bad': there is no job 'missing'; submit it first"),
        ("children:missing", None, "after: child 'bad': there is no job 'missing'; submit it first"),
        ("group:imprt", None, "after: child 'bad': no job is in the group 'imprt'; submit its members first"),
        (None, "closed", "group: child 'bad': batch 'closed' is closed; only its running members can add jobs"),
    ],
)
def test_child_that_names_an_unknown_group_is_refused(
    jobs: Jobs, after: str | None, group: str | None, text: str
) -> None:
    leaf = child(jobs)
    with jobs.batch("closed") as batch:
        batch.submit(leaf)

    @jobs.job("parent")
    def parent(run: Run) -> None:
        run.submit_child("bad", leaf.options(after=[after] if after else None, group=group))
        run.join()

    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.submit(parent), timeout=PATIENCE)
    assert job.error == text
    assert children_of(jobs, job.job_id) == []


@pytest.mark.parametrize("is_async", [False, True])
def test_join_that_would_never_return_is_refused(jobs: Jobs, is_async: bool) -> None:
    """Another job came in between: it waits for the parent, and the child for it."""
    leaf, is_circle = child(jobs), threading.Event()

    def parent(run: Run) -> None:
        run.submit_child("a", leaf.options(after=["group:g"]))
        assert is_circle.wait(PATIENCE)
        run.join()

    async def aparent(run: AsyncRun) -> None:
        run.submit_child("a", leaf.options(after=["group:g"]))
        assert await asyncio.to_thread(is_circle.wait, PATIENCE)
        await run.join()

    made: Any = jobs.job("parent")(aparent if is_async else parent)
    jobs.create_job("first", group="g")
    with jobs.run_workers(concurrency=1):
        jobs.submit(made.options(job_id="p"))
        until(lambda: children_of(jobs, "p") == ["a"])
        jobs.submit(leaf.options(group="g", after=["job:p"], job_id="between"))
        is_circle.set()
        job = jobs.wait("p", timeout=PATIENCE)
    assert job.error == (
        "run.join(): would never return: a child waits for job between, which waits for job:p; cancel one of these jobs"
    )


async def in_task(join: Any) -> None:
    await asyncio.create_task(join)


async def in_gather(join: Any) -> None:
    await asyncio.gather(join, asyncio.sleep(0))


async def in_group(join: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(join)


@pytest.mark.parametrize("wait", [in_task, in_gather, in_group])
def test_join_in_another_task_is_refused(jobs: Jobs, wait: Any) -> None:
    leaf, refused = child(jobs), list[BaseException]()

    @jobs.job("parent")
    async def parent(run: AsyncRun) -> None:
        run.submit_child("a", leaf)
        try:
            await wait(run.join())
        except BaseException as error:
            refused.append(error)
            raise

    with jobs.run_workers(concurrency=1):
        assert jobs.wait(jobs.submit(parent), timeout=PATIENCE).status == "failed"
    (error,) = refused
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, InvalidInputError)
    assert str(error).startswith(
        "run.join(): cannot suspend the job in another task or thread than that of the handler"
    )


@pytest.mark.parametrize("is_async", [False, True])
def test_unknown_key_of_a_child_is_named(jobs: Jobs, is_async: bool) -> None:
    leaf = child(jobs)

    def parent(run: Run) -> None:
        run.submit_child("a", leaf)
        run.join().result("b")

    async def aparent(run: AsyncRun) -> None:
        run.submit_child("a", leaf)
        await (await run.join()).job("b")

    made: Any = jobs.job("parent")(aparent if is_async else parent)
    with jobs.run_workers(concurrency=1):
        job = jobs.wait(jobs.submit(made), timeout=PATIENCE)
    assert job.error == "Child 'b' not found; run.submit_child makes it"
