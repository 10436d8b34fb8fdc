"""What `run.join` returns: the children of a run, which are read when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from milepost.core.errors import RejectedError
from milepost.core.job import Job
from milepost.core.values import MemberCounts
from milepost.run.children import ChildJobs


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
