"""Follow the events of several jobs until all have ended or a deadline passes.

Each job is watched by a thread with its own manager. An unavailable store is waited for, with the reason in `problem`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from milepost.cli import exit_codes
from milepost.core.errors import JobNotFoundError, MilepostError, StoreUnavailableError
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus

if TYPE_CHECKING:
    from milepost.cli.context import CommandContext

MAX_WATCHED = 64
POLL_INTERVAL = 0.2
RETRY_DELAY = 1.0


class JobFollower:
    """A live stream of the events of some jobs."""

    def __init__(self, context: CommandContext, jobs: Sequence[Job], after: str | None = None) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.problem: str | None = None
        self._session = context
        self._after = after
        self._events: queue.Queue[tuple[str, Event | MilepostError | None]] = queue.Queue()
        self._open = set(self.jobs)

    def events(self, timeout: float | None = None) -> Iterator[Event | None]:
        """Yield each event, and None a few times a second, until all jobs ended or the timeout. Raises errors of a watch."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for job_id in self.jobs:
            threading.Thread(target=self._watch, args=(job_id,), name="milepost-watch", daemon=True).start()
        while self._open:
            if deadline is not None and time.monotonic() >= deadline:
                return
            try:
                job_id, news = self._events.get(timeout=POLL_INTERVAL)
            except queue.Empty:
                yield None
                continue
            if isinstance(news, JobNotFoundError) or news is None:
                self._open.discard(job_id)
            elif isinstance(news, MilepostError):
                raise news
            else:
                yield news
            if news is None:
                yield None

    @property
    def is_over(self) -> bool:
        """Return whether the streams of all jobs have ended."""
        return not self._open

    def refresh(self) -> list[Job]:
        """Return the current jobs; deleted jobs, and all jobs during an outage, as last seen."""
        try:
            for job_id in self.jobs:
                latest = self._session.manager.get_job(job_id)
                if latest is not None:
                    self.jobs[job_id] = latest
            self.problem = None
        except StoreUnavailableError as away:
            self.problem = str(away)
        return list(self.jobs.values())

    def exit_code(self) -> int:
        """Return 0 if all completed, 1 if any failed, 3 if any was cancelled, 124 if not all have ended."""
        statuses = {job.status for job in self.refresh()}
        if JobStatus.FAILED in statuses:
            return exit_codes.FAILED
        if not all(status.is_terminal for status in statuses):
            return exit_codes.TIMED_OUT if not self.is_over else exit_codes.CANCELLED
        return exit_codes.CANCELLED if JobStatus.CANCELLED in statuses else exit_codes.OK

    def _watch(self, job_id: str) -> None:
        manager = self._session.open()
        after = self._after
        try:
            while True:
                try:
                    for event in manager.watch(job_id, after):
                        after, self.problem = event.position, None
                        self._events.put((job_id, event))
                except StoreUnavailableError as away:
                    self.problem = str(away)
                    time.sleep(RETRY_DELAY)
                else:
                    self._events.put((job_id, None))
                    return
        except MilepostError as error:
            self._events.put((job_id, error))
        finally:
            manager.close()
