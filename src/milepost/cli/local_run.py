"""A job run in this process by `milepost run`: start, signals, end, and the unique key by which a repeat resumes it.

The first Ctrl-C or SIGTERM cancels the job, and the code stops at its next cancellation point. The second one, or the
end of the grace period, raises KeyboardInterrupt in the code.
"""

from __future__ import annotations

import _thread
import getpass
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from types import FrameType
from typing import TYPE_CHECKING, Any

from milepost.cli import formatting
from milepost.core.errors import JobCancelled, RejectedError, StoreError
from milepost.core.job import Job, JobStatus
from milepost.run.run import Run
from milepost.stores.protocol import Select
from milepost.stores.query import Query
from milepost.worker.parameters import run_type_of

if TYPE_CHECKING:
    from milepost.cli.context import CommandContext
    from milepost.cli.job_types import LocalType

MAX_KEY_LENGTH = 400
RESUMABLE_STATUSES = ("running", "failed", "cancelled")


def job_key(job_type: str, params: Mapping[str, Any]) -> str:
    """Return the unique key of a command: its type and parameters, or a digest of them if they are long."""
    text = f"{job_type} {json.dumps(params, sort_keys=True, ensure_ascii=True)}"
    return text if len(text) <= MAX_KEY_LENGTH else f"{job_type} {blake2b(text.encode(), digest_size=16).hexdigest()}"


def title_of(params: Mapping[str, Any]) -> str | None:
    """Return the title of a job with these parameters, or None."""
    for value in params.values():
        if isinstance(value, str) and value:
            return os.path.basename(value.rstrip("/")) or value
        if isinstance(value, list) and value and isinstance(value[0], str):
            first = os.path.basename(value[0].rstrip("/")) or value[0]
            return first if len(value) == 1 else f"{first} and {formatting.number(len(value) - 1)} more"
    return None


class LocalRun:
    """One run of one command. `run` is set once the job has started; `notices` are lines for the user."""

    def __init__(
        self, context: CommandContext, local: LocalType, params: dict[str, Any], labels: Mapping[str, str]
    ) -> None:
        self.local = local
        self.notices: list[str] = []
        self.run: Run | None = None
        self.signalled: int | None = None
        self.began = datetime.now(UTC)
        self._context = context
        self._labels = dict(labels)
        self._values = local.read(params)
        shown = {name: "***" if name in local.secrets else value for name, value in params.items()}
        self._metadata = {"title": title_of(shown) or local.job_type, "params": shown, "cwd": os.getcwd()}
        self._key = job_key(local.job_type, params)
        self._ended = threading.Event()

    @property
    def stopping(self) -> bool:
        """Return whether the code was asked to stop and has not stopped yet."""
        return self.run is not None and self.run.cancelled and not self._ended.is_set()

    @property
    def job(self) -> Job | None:
        """Return the job as its run knows it, ahead of the store, or None before the start."""
        run = self.run
        if run is None:
            return None
        foreseen = Job.stored(run.job_id, run._forecast)
        return Job(
            run.job_id, run.job_type, JobStatus.RUNNING, run.fraction, run.message, self.began, self.began,
            metadata=self._metadata, attempt=run.attempt, stages=run.stages, eta=foreseen.eta, stalled=foreseen.stalled,
        )  # fmt: skip

    def execute(self) -> None:
        """Run the job to its end. Raises the error of the code, a RunStop after a cancel, or the reason why it cannot start."""
        earlier = self._previous_job()
        if earlier is not None and earlier.status is JobStatus.RUNNING:
            self._notify_waiting(earlier)
        with self._handle_signals():
            try:
                self._context.manager.track(
                    self.local.job_type, unique_key=self._key, metadata=self._metadata, labels=self._labels
                ).execute(self._code(earlier), run_type_of(self.local.function))
            finally:
                self._ended.set()

    def _code(self, earlier: Job | None) -> Callable[[Run], Any]:
        """Return the function of the job, of its run alone, which notes that the job has started."""

        def start(run: Run) -> None:
            if earlier is not None and earlier.job_id == run.job_id:
                self.notices.append(_resume_notice(earlier))
            self.began = datetime.now(UTC)
            self.run = run

        def call(run: Run) -> Any:
            start(run)
            return self.local.function(run, **self._values)

        async def acall(run: Run) -> Any:
            start(run)
            return await self.local.function(run, **self._values)

        return acall if self.local.is_async else call

    def _previous_job(self) -> Job | None:
        """Return the job that this command would resume, or None."""
        key = self._key
        query = Query(Select((self.local.job_type,), RESUMABLE_STATUSES), (lambda job: job.unique_key == key,))
        found = self._context.manager.find(query, 1).jobs
        return found[0] if found else None

    def _notify_waiting(self, job: Job) -> None:
        """Add a notice if the start is still waiting for a previous run's lease after half a second."""

        def echo() -> None:
            if self.run is None and not self._ended.is_set():
                left = ""
                if job.lease_expires_at is not None:
                    seconds = max(1.0, (job.lease_expires_at - datetime.now(UTC)).total_seconds())
                    left = f" (at most {formatting.short_duration(seconds)})"
                self.notices.append(
                    f"Job {job.job_id} of this command may still run; waiting for its lease to expire{left}"
                )

        timer = threading.Timer(0.5, echo)
        timer.daemon = True
        timer.start()

    @contextmanager
    def _handle_signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a cancel of the job while it runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.signalled = self.signalled is not None, self.signalled or number
        if self.run is None or again or self._ended.is_set():
            raise KeyboardInterrupt
        threading.Thread(target=self._cancel, args=(self.run, number), name="milepost-cancel", daemon=True).start()

    def _cancel(self, run: Run, number: int) -> None:
        """Record the cancel, signal the code, and interrupt it if it does not stop within the grace period."""
        why = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        manager = self._context.open()
        try:
            manager.cancel_job(run.job_id, why, by=user_name())
            run.stop(JobCancelled(f"cancelled: {why}"))
        except RejectedError:
            return  # the job has ended meanwhile
        except StoreError:
            _thread.interrupt_main()  # the cancel is recorded when the block ends
            return
        finally:
            manager.close()
        if not self._ended.wait(manager.settings.grace):
            _thread.interrupt_main()


def _resume_notice(earlier: Job) -> str:
    """Return the notice for a resumed job."""
    done = [stage for stage in earlier.stages if stage.total and stage.ended_at is None]
    how_far = formatting.percent(earlier.progress)
    if done:
        how_far += f", {formatting.units(done[-1].done, done[-1].total, done[-1].unit)}"
    lost = earlier.status is JobStatus.RUNNING or (earlier.failure is not None and earlier.failure.kind == "lost")
    what = "its process died" if lost else "failed" if earlier.status is JobStatus.FAILED else "cancelled"
    return f"Resuming job {earlier.job_id} ({what} at {how_far})"


def user_name() -> str:
    """Return the name of the user, for receipts."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "the command line"
