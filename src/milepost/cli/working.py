"""What a worker of this process does, heard from the store's feed: which jobs it runs and how they ended.

One thread. Owns the counts; how they are shown is its callers'.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.driving import drive
from milepost.tracking.process import process_name

if TYPE_CHECKING:
    from milepost.manager.synchronous import JobManager

ENDS = frozenset({"completed", "failed", "cancelled", "released", "retrying"})
ENDED = frozenset({"completed", "failed", "cancelled"})
LATELY = 60.0
AGAIN = 2.0


class WorkerNews:
    """The jobs of this process's worker. `on_event` is told of each start and end, with the job as it was then."""

    def __init__(self, manager: JobManager, on_event: Callable[[Event, Job], None] | None = None) -> None:
        self.running: dict[str, Job] = {}
        self.ended: Counter[str] = Counter()
        self.lately: deque[float] = deque(maxlen=10_000)
        self.problem: str | None = None
        self._manager = manager
        self._on_event = on_event
        self._name = process_name()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="milepost-news", daemon=True)

    def start(self) -> None:
        """Begin to listen; what happens from now on is heard."""
        self._position = drive(self._manager.store.feed(None)).position
        self._thread.start()

    def stop(self) -> None:
        """Hear what was said until now, and stop."""
        self._over.set()
        self._thread.join(AGAIN)

    def per_minute(self) -> int:
        """How many jobs ended in the last minute."""
        now = time.monotonic()
        return sum(1 for at in tuple(self.lately) if now - at <= LATELY)

    def refresh(self) -> list[Job]:
        """The running jobs as they are now."""
        shown = []
        for job_id in tuple(self.running):
            job = self._manager.get_job(job_id)
            if job is not None and job_id in self.running:
                shown.append(job)
        return shown

    def _listen(self) -> None:
        over = False
        while not over:
            over = self._over.is_set()  # once more after the end, for what was said until then
            try:
                news = drive(self._manager.store.feed(self._position, timeout=0.0 if over else 0.5))
                self._position, self.problem = news.position, None
                for event in news.events:
                    self._hear(event)
            except StoreError as error:
                self.problem = str(error)
                self._over.wait(AGAIN)

    def _hear(self, event: Event) -> None:
        if event.kind == "running" and str(event.data.get("worker", "")).startswith(self._name):
            job = self._manager.get_job(event.job_id)
            if job is not None:
                self.running[event.job_id] = job
                self._tell(event, job)
        elif event.kind in ENDS and event.job_id in self.running:
            job = self._manager.get_job(event.job_id) or self.running[event.job_id]
            del self.running[event.job_id]
            self.ended[event.kind] += 1
            if event.kind in ENDED:
                self.lately.append(time.monotonic())
            self._tell(event, job)

    def _tell(self, event: Event, job: Job) -> None:
        if self._on_event is not None:
            self._on_event(event, job)
