"""Following several jobs at once: one queue of their events, ended by each one's last word or by a deadline.

One thread with a manager of its own for each job. A store that goes away is waited for: `problem` says why. Owns the
exit code of a set of jobs; prints nothing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from milepost.cli import exits
from milepost.core.errors import JobNotFound, MilepostError, StoreUnavailable
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus

if TYPE_CHECKING:
    from milepost.cli.session import Session

MOST = 64
TICK = 0.2
AGAIN = 1.0


class Following:
    """The events of some jobs, as they come."""

    def __init__(self, session: Session, jobs: Sequence[Job], after: int | None = None) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.problem: str | None = None
        self._session = session
        self._after = after
        self._news: queue.Queue[tuple[str, Event | MilepostError | None]] = queue.Queue()
        self._open = set(self.jobs)

    def events(self, timeout: float | None = None) -> Iterator[Event | None]:
        """Each event, and None a few times a second; until all have ended or the time is over. Raises what a watch raised."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for job_id in self.jobs:
            threading.Thread(target=self._watch, args=(job_id,), name="milepost-watch", daemon=True).start()
        while self._open:
            if deadline is not None and time.monotonic() >= deadline:
                return
            try:
                job_id, news = self._news.get(timeout=TICK)
            except queue.Empty:
                yield None
                continue
            if isinstance(news, JobNotFound) or news is None:
                self._open.discard(job_id)
            elif isinstance(news, MilepostError):
                raise news
            else:
                yield news
            if news is None:
                yield None

    @property
    def is_over(self) -> bool:
        """Whether all jobs have had their last word."""
        return not self._open

    def refresh(self) -> list[Job]:
        """The jobs as they are now; one that was deleted stays as it was seen last, as do all while the store is away."""
        try:
            for job_id in self.jobs:
                latest = self._session.manager.get_job(job_id)
                if latest is not None:
                    self.jobs[job_id] = latest
            self.problem = None
        except StoreUnavailable as away:
            self.problem = str(away)
        return list(self.jobs.values())

    def exit_code(self) -> int:
        """0 all completed, 1 any failed, 3 cancelled, 124 not over."""
        statuses = {job.status for job in self.refresh()}
        if JobStatus.FAILED in statuses:
            return exits.FAILED
        if not all(status.is_terminal for status in statuses):
            return exits.TIMED_OUT if not self.is_over else exits.CANCELLED
        return exits.CANCELLED if JobStatus.CANCELLED in statuses else exits.OK

    def _watch(self, job_id: str) -> None:
        manager = self._session.open()
        after = self._after
        try:
            while True:
                try:
                    for event in manager.watch(job_id, after):
                        after, self.problem = event.version, None
                        self._news.put((job_id, event))
                except StoreUnavailable as away:
                    self.problem = str(away)
                    time.sleep(AGAIN)
                else:
                    self._news.put((job_id, None))
                    return
        except MilepostError as error:
            self._news.put((job_id, error))
        finally:
            manager.close()
