"""The seam to an engine: what milepost asks of it, and how a job that is recorded comes to it. Owns the order (first the
record, then the message) and the thread that hands over what was left; knows no engine and runs no job.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from milepost.core.errors import InvalidInput, MilepostError, StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_handed, plan_stranded
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Store, Write
from milepost.tracking.process import process_name
from milepost.tracking.sweeper import HAND_OVER_AGAIN, Sweeper
from milepost.worker.application import Application
from milepost.worker.presence import HEARTBEAT, Presence
from milepost.worker.published import remove_worker

log = logging.getLogger("milepost.engine")
log.addHandler(logging.NullHandler())

LOST_AFTER = 3600.0
"""What `Engine.lost_after` is when nothing else is said."""


class EngineUnavailable(MilepostError):
    """The engine did not take a message: its broker cannot be reached, or refuses."""


class Engine(Protocol):
    """An engine that runs jobs for applications: ``Jobs(url, engine=CeleryEngine(app))``.

    A message of it names a job and nothing more; what is to be done is in the record. So a message may come twice, late
    or never: the second finds a live lease or an ended job, and a lost one is sent again. A process of the engine's that
    is to be seen says so with `Handing.at_work`.
    """

    name: str
    """What the records call it; the processes of one engine share it."""

    lost_after: float
    """Seconds without a start after which a message counts as lost, and the job is handed over again."""

    def serve(self, app: Application, handing: Handing) -> None:
        """An application's jobs are to run here: make what takes its messages. Called once, by the application."""

    def hand_over(self, job: Job) -> None:
        """Send the message of a pending job. Raises EngineUnavailable."""

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """End the code that a message has started and that goes on past its grace time, asked from inside its process;
        `hard` when it went on after that too. What the receipt is to call it; None when the engine has no such means:
        then the code stops when it looks, or when it is done."""

    def is_exit(self, error: BaseException) -> bool:
        """Whether what left the code is the engine's way of ending it, or the end of its worker."""


class Handing:
    """Hands the jobs of one application to its engine: those just recorded, and, in a thread, those that were left."""

    def __init__(self, app: Application, engine: Engine) -> None:
        if app.store.url.startswith("memory:"):
            problem = "its workers are other processes, which cannot see a store in memory; use sqlite:// or redis://"
            raise InvalidInput("engine", problem)
        self.app = app
        self.engine = engine
        self._lock = threading.Lock()
        self._pid = 0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._presence: Presence | None = None
        self._worker = ""
        engine.serve(app, self)

    # --- what was just recorded ---

    async def give(self, store: Store, jobs: Sequence[Job]) -> None:
        """Hand over jobs that were recorded just now, and write that down: one round trip besides the engine's own.

        An engine that cannot be reached makes no submit fail: the record says so, and the thread tries again.
        """
        self.start()
        ready = [job for job in jobs if job.status is JobStatus.PENDING and "not_before" not in job.record]
        writes = self._hand_over(ready) if store.blocking else await asyncio.to_thread(self._hand_over, ready)
        if writes:
            await store.apply(writes)

    def _hand_over(self, jobs: Sequence[Job]) -> list[Write]:
        """Send the messages; what is to be written of them."""
        writes = []
        for job in jobs:
            try:
                self.engine.hand_over(job)
                plan = plan_handed(new_op(), int(self.engine.lost_after * 1_000_000), job.version)
            except EngineUnavailable as error:
                log.warning("job %s (%s) is not with %s yet: %s", job.job_id, job.job_type, self.engine.name, error)
                plan = plan_stranded(new_op(), HAND_OVER_AGAIN, f"{self.engine.name} cannot be reached: {error}")
            writes.append(Write(job.job_id, plan, answer=False))
        return writes

    # --- what was left ---

    def start(self) -> None:
        """Look after what was left, from now on, in a thread of this process; again after a fork."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._end, self._presence = os.getpid(), threading.Event(), None
                self._thread = threading.Thread(target=self._keep, name=f"milepost-{self.engine.name}", daemon=True)
                self._thread.start()

    def at_work(self, concurrency: int) -> None:
        """This process is a worker of the engine: say that it lives, and which types it has; and `start`."""
        self.start()
        handlers = tuple(self.app.handlers.values())
        self._worker = process_name()
        self._presence = Presence(
            self._blocking(), self._worker, handlers, concurrency, _nothing_known, _nothing, self.engine.name
        )

    def rest(self) -> None:
        """This process runs the code of a job: what is left is seen to elsewhere."""
        self._pid = os.getpid()

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            thread, self._thread = (self._thread if self._pid == os.getpid() else None), None
            self._pid = 0
            self._end.set()
        if thread is not None:
            thread.join(5.0)

    def _blocking(self) -> Store:
        return self.app.store.twin(blocking=True)

    def _keep(self) -> None:
        store, end, settings = self._blocking(), self._end, self.app.settings
        sweeper = Sweeper(store, settings, self.app.ttl, self.engine.name)
        next_sweep = next_beat = 0.0
        away = 0
        while not end.is_set():
            now = time.monotonic()
            try:
                if self._presence is not None and now >= next_beat:
                    next_beat = now + HEARTBEAT
                    drive(self._presence.tell())
                if now >= next_sweep:
                    next_sweep = now + settings.sweep_interval
                    drive(sweeper.look())
                    writes = self._hand_over(sweeper.take_due())
                    if writes:
                        drive(store.apply(writes))
                away = 0
            except StoreError as error:
                away += 1
                if away == 1:
                    log.warning("the store cannot be reached; jobs wait: %s", error)
            except Exception:
                # A defect here must not leave every job of the engine waiting.
                log.exception("handing over to %s met an unexpected error; it goes on", self.engine.name)
            end.wait(
                max(0.05, min(next_sweep, next_beat if self._presence is not None else next_sweep) - time.monotonic())
            )
        if self._presence is not None:
            drive(remove_worker(store, self._worker))


def _nothing_known() -> tuple[tuple[str, ...], bool]:
    """What runs in the processes of an engine's worker, and whether it drains."""
    return (), False


def _nothing() -> None:
    """Nobody waits for the first beat."""
