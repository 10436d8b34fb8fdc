"""The seam to an engine: what milepost asks of it, and how a job that is recorded comes to it. Owns the order (first the
record, then the message) and the thread that notes what was handed over and hands over what was left; knows no engine
and runs no job.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakSet

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
from milepost.worker.published import JobType, remove_worker, type_of

log = logging.getLogger("milepost.engine")
log.addHandler(logging.NullHandler())

LOST_AFTER = 3600.0
"""What `Engine.lost_after` is when nothing else is said."""
NOTES_EVERY = 0.2
"""Seconds for which notes of messages that were sent are collected. A job whose note is lost with its process gets a second
message, by which it does not run again."""


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
        then the code stops when it looks, or when it is done. Raises EngineUnavailable: then it is asked again."""

    def is_exit(self, error: BaseException) -> bool:
        """Whether what left the code is the engine's way of ending it, or the end of its worker."""

    def close(self) -> None:
        """The application closes: give back what this has opened by itself, and leave alone what was given to it."""


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
        self._sent = threading.Event()
        self._notes: list[Write] = []
        self._thread: threading.Thread | None = None
        self._presence: Presence | None = None
        self._worker = ""
        _all.add(self)
        engine.serve(app, self)

    # --- what was just recorded ---

    async def give(self, store: Store, jobs: Sequence[Job]) -> None:
        """Hand over jobs that were recorded just now; that they were is written down by the thread, for many at once.

        An engine that cannot be reached makes no submit fail: the record says so, and the thread tries again.
        """
        self.start()
        ready = [job for job in jobs if job.status is JobStatus.PENDING and "not_before" not in job.record]
        stranded = self._hand_over(ready) if store.blocking else await asyncio.to_thread(self._hand_over, ready)
        if stranded:
            await store.apply(stranded)

    def _hand_over(self, jobs: Sequence[Job]) -> list[Write]:
        """Send the messages, and note it; what is to be written of those that could not be sent."""
        notes, stranded = [], []
        for job in jobs:
            try:
                self.engine.hand_over(job)
            except EngineUnavailable as error:
                log.warning("job %s (%s) is not with %s yet: %s", job.job_id, job.job_type, self.engine.name, error)
                plan = plan_stranded(new_op(), HAND_OVER_AGAIN, f"{self.engine.name} cannot be reached: {error}")
                stranded.append(Write(job.job_id, plan, answer=False))
            else:
                plan = plan_handed(new_op(), int(self.engine.lost_after * 1_000_000), job.version)
                notes.append(Write(job.job_id, plan, answer=False))
        if notes:
            with self._lock:
                self._notes += notes
            if self._thread is None:
                try:
                    self.write_notes()
                except StoreError as error:  # the jobs are recorded and sent, so no submit is to fail for that
                    log.warning("that %d messages were sent is not noted yet: %s", len(notes), error)
            else:
                self._sent.set()
        return stranded

    @property
    def has_notes(self) -> bool:
        """Whether there is a message of which nobody knows yet that it was sent."""
        return bool(self._notes)

    def write_notes(self) -> None:
        """Write down which messages were sent. What the store does not take now is kept for the next time: StoreError."""
        with self._lock:
            notes, self._notes = self._notes, []
        try:
            if notes:
                drive(self._blocking().apply(notes))
        except StoreError:
            with self._lock:
                self._notes = notes + self._notes
            raise

    # --- what was left ---

    def start(self) -> None:
        """Look after what was left, from now on, in a thread of this process; again after a fork."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._end, self._presence = os.getpid(), threading.Event(), None
                self._sent, self._notes = threading.Event(), []
                self._thread = threading.Thread(target=self._keep, name=f"milepost-{self.engine.name}", daemon=True)
                self._thread.start()

    def at_work(self, concurrency: int, more: Sequence[JobType] = ()) -> None:
        """This process is a worker of the engine: say that it lives, and which types it has; and `start`. `more` are types
        of which the engine itself has the code."""
        self.start()
        types = [*(type_of(handler, self.engine.name) for handler in self.app.handlers.values()), *more]
        self._worker = process_name()
        self._presence = Presence(self._blocking(), self._worker, types, concurrency, _nothing_known, _nothing)

    def rest(self) -> None:
        """This process runs the code of a job: what is left is seen to elsewhere."""
        if self._pid != os.getpid():  # of the one that this was forked from nothing is kept, whatever it held then
            self._lock = threading.Lock()
            self._pid, self._thread, self._notes = os.getpid(), None, []

    def end(self) -> None:
        """End the thread, with its last notes."""
        with self._lock:
            thread, self._thread = (self._thread if self._pid == os.getpid() else None), None
            self._pid = 0
            self._end.set()
            self._sent.set()
        if thread is not None:
            thread.join(5.0)

    def close(self) -> None:
        """The application closes: `end`, and the engine's own `close`."""
        self.end()
        self.engine.close()

    def _blocking(self) -> Store:
        return self.app.store.twin(blocking=True)

    def _keep(self) -> None:
        store, end, sent, settings = self._blocking(), self._end, self._sent, self.app.settings
        sweeper = Sweeper(store, settings, self.app.ttl, self.engine.name)
        next_sweep = next_beat = 0.0
        away = 0
        while not end.is_set():
            now = time.monotonic()
            try:
                self.write_notes()
                if self._presence is not None and now >= next_beat:
                    next_beat = now + HEARTBEAT
                    drive(self._presence.tell())
                if now >= next_sweep:
                    next_sweep = now + settings.sweep_interval
                    drive(sweeper.look())
                    stranded = self._hand_over(sweeper.take_due())
                    if stranded:
                        drive(store.apply(stranded))
                away = 0
            except StoreError as error:
                away += 1
                if away == 1:
                    log.warning("the store cannot be reached; jobs wait: %s", error)
            except Exception:
                # A defect here must not leave every job of the engine waiting.
                log.exception("handing over to %s met an unexpected error; it goes on", self.engine.name)
            due = min(next_sweep, next_beat if self._presence is not None else next_sweep)
            if sent.wait(max(0.05, due - time.monotonic())):
                sent.clear()
                end.wait(NOTES_EVERY)
        try:
            self.write_notes()
            if self._presence is not None:
                drive(remove_worker(store, self._worker))
        except StoreError as error:
            log.warning("a process of %s could not sign off: %s", self.engine.name, error)


_all: WeakSet[Handing] = WeakSet()


@atexit.register
def _write_notes() -> None:
    """What was sent in the last moments of a process."""
    for handing in tuple(_all):
        if handing.has_notes:
            handing.end()


def _nothing_known() -> tuple[tuple[str, ...], bool]:
    """What runs in the processes of an engine's worker, and whether it drains."""
    return (), False


def _nothing() -> None:
    """Nobody waits for the first beat."""
