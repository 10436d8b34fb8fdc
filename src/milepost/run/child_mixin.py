"""`run.submit_child`: make a child job under a key; `run.join`: wait for all children without a worker, and read them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, cast

from milepost.core.errors import RejectedError
from milepost.core.job import Job
from milepost.core.values import MemberCounts
from milepost.run.children import ChildJobs, ChildTarget, OnChildError, refuse_join

if TYPE_CHECKING:
    from milepost.run.run import Run


class Children:
    """The children of a run, none of which is open: ``len(children)``, `counts`, `result` and `job` by key, and iteration."""

    def __init__(self, jobs: ChildJobs, counts: MemberCounts) -> None:
        self._jobs = jobs
        self.counts = counts
        """The exact numbers of children."""

    def __len__(self) -> int:
        return self.counts.total

    def __iter__(self) -> Iterator[Job]:
        """Yield the records, newest first; 500 are read at once, without large results."""
        return self._jobs.pages()

    def job(self, key: str) -> Job:
        """Return the record of the child with a key. Raises JobNotFoundError."""
        return self._jobs.get(key)

    def result(self, key: str) -> Any:
        """Return the result of the child with a key. Raises JobNotFoundError, and RejectedError if it has not completed."""
        return _result_of(self._jobs.get(key))


class AsyncChildren:
    """The children of a run of async code: as Children, with `job` and `result` awaited, and ``async for``."""

    def __init__(self, jobs: ChildJobs, counts: MemberCounts) -> None:
        self._jobs = jobs
        self.counts = counts
        """The exact numbers of children."""

    def __len__(self) -> int:
        return self.counts.total

    async def __aiter__(self) -> AsyncIterator[Job]:
        """Yield the records, newest first; 500 are read at once, without large results."""
        pages = self._jobs.pages()
        while (job := await asyncio.to_thread(next, pages, None)) is not None:
            yield job

    async def job(self, key: str) -> Job:
        """Return the record of the child with a key. Raises JobNotFoundError."""
        return await asyncio.to_thread(self._jobs.get, key)

    async def result(self, key: str) -> Any:
        """Return the result of the child with a key. Raises JobNotFoundError, and RejectedError if it has not completed."""
        return _result_of(await self.job(key))


def _result_of(job: Job) -> Any:
    if job.status.value != "completed" or job.result_error is not None:
        why = job.result_error or job.error or job.status.value
        raise RejectedError(f"Child {job.child_key!r:.80} ({job.job_id}) has no result: {why}", job=job)
    return job.result


P = ParamSpec("P")

POLL_INTERVAL = 0.2
"""Seconds between two looks at the children while a run waits in place."""


class ChildMixin:
    """Adds `submit_child` and `join` to a Run."""

    _open_children = 0
    """The children that were open when the code returned, as far as it has not waited for them."""

    def submit_child(self, key: str, handler: ChildTarget[P], /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Make a child job, and return its id: ``run.submit_child(path.name, ingest, path=path)``.

        The key (text up to 200 bytes) is used once in an attempt. A later attempt, and the code that starts again after
        `join`, finds the child of the key: an open or completed one stays as it is, and one that failed or was cancelled in
        an earlier attempt is retried. With other parameters it raises InputChangedError.

        Children are made in groups, within a second. A child has the labels of its parent. It is cancelled when its parent
        has failed for good, or is cancelled or deleted, unless the parent was submitted with ``children="keep"``. Raises
        InvalidInputError. A cancellation point.
        """
        run = cast("Run", self)
        run._refuse_fork("submit_child")
        run.check()
        jobs = ChildJobs.of(run)
        child_id = jobs.add(key, handler, args, kwargs)
        if jobs.is_full:
            self._flush_full(jobs)
        return child_id

    def _flush_full(self, jobs: ChildJobs) -> None:
        jobs.flush()

    def join(self, *, errors: OnChildError = "raise") -> Children:
        """Wait until no child is open, and return the children: ``children.result(key)``, ``children.counts``.

        The job is suspended, so that its worker is free: the code ends here with JobSuspended (``with`` and ``finally``
        run), and starts again from its beginning, in the same attempt. While all open children run, it waits in place for
        up to 5 s first. A tracked block waits in place.

        Raises ChildFailedError if a child has failed or was cancelled, unless ``errors="collect"``; and InvalidInputError
        in another thread or task than the handler's own. A cancellation point.
        """
        run = cast("Run", self)
        refuse_join(run, errors)
        jobs = ChildJobs.of(run)
        jobs.flush()
        since = time.monotonic()
        while jobs.must_wait(since, time.monotonic()):
            run._wait_in_place(POLL_INTERVAL)
        counts = jobs.counts()
        if errors == "raise":
            jobs.check(counts)
        return Children(jobs, counts)
