"""Follows the jobs of this process's worker through the store's feed, and counts their outcomes."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from milepost.core.errors import OutcomeUnknownError, StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.run.process_identity import process_name
from milepost.stores.sync_bridge import run_sync

if TYPE_CHECKING:
    from milepost.manager.feed_follower import FeedNews
    from milepost.manager.sync import JobManager

RUN_END_EVENTS = frozenset({"completed", "failed", "cancelled", "released", "retrying"})
TERMINAL_EVENTS = frozenset({"completed", "failed", "cancelled"})
RECENT_WINDOW = 60.0
POLL_INTERVAL = 0.5
RETRY_DELAY = 2.0


class WorkerMonitor:
    """The running jobs and outcome counts of this process's worker. `on_event` is called at each start and end."""

    def __init__(self, manager: JobManager, on_event: Callable[[Event, Job], None] | None = None) -> None:
        self.running: dict[str, Job] = {}
        self.ended: Counter[str] = Counter()
        self.recently_ended: deque[float] = deque(maxlen=10_000)
        self._error: StoreError | None = None
        from milepost.manager.feed_follower import FeedFollower  # here, because `worker --help` does without it

        self._manager = manager
        self._follower = FeedFollower(lambda: manager.store)
        self._follower.add(self._receive)
        self._on_event = on_event
        self._name = process_name()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="milepost-news", daemon=True)

    def start(self) -> None:
        """Start following the feed, now or as soon as an unavailable store is back.

        Raises StoreError for errors that waiting cannot solve, such as a wrong password.
        """
        run_sync(self._follower.read(0.0))
        waits = isinstance(self._error, OutcomeUnknownError) or getattr(self._error, "temporary", False)
        if self._error is not None and not waits:
            raise self._error
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the store is unavailable, or None if it responds."""
        return None if self._error is None else str(self._error)

    def stop(self) -> None:
        """Process the events until now, and stop."""
        self._stopping.set()
        if self._error is None:
            self._thread.join(RETRY_DELAY)

    def per_minute(self) -> int:
        """Return the number of jobs that ended in the last minute."""
        now = time.monotonic()
        return sum(1 for at in tuple(self.recently_ended) if now - at <= RECENT_WINDOW)

    def refresh(self) -> list[Job]:
        """Return the running jobs with their current state."""
        shown = []
        for job_id in tuple(self.running):
            job = self._manager.get_job(job_id)
            if job is not None and job_id in self.running:
                shown.append(job)
        return shown

    def _listen(self) -> None:
        over = False
        while not over:
            over = self._stopping.is_set()  # one more read after the end, for the last events
            if not run_sync(self._follower.read(0.0 if over else POLL_INTERVAL)):
                self._stopping.wait(RETRY_DELAY)

    def _receive(self, news: FeedNews) -> None:
        self._error = news.error
        for event in news.events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if event.kind == "running" and str(event.data.get("worker", "")).startswith(self._name):
            job = self._read(event.job_id)
            if job is not None:
                self.running[event.job_id] = job
                self._notify(event, job)
        elif event.kind in RUN_END_EVENTS and event.job_id in self.running:
            job = self._read(event.job_id) or self.running[event.job_id]
            del self.running[event.job_id]
            self.ended[event.kind] += 1
            if event.kind in TERMINAL_EVENTS:
                self.recently_ended.append(time.monotonic())
            self._notify(event, job)

    def _read(self, job_id: str) -> Job | None:
        try:
            return self._manager.get_job(job_id)
        except StoreError as error:
            self._error = error
            return None

    def _notify(self, event: Event, job: Job) -> None:
        if self._on_event is not None:
            self._on_event(event, job)
