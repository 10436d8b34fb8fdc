"""A job that runs in this very process: its start, its Ctrl-C, its end. Owns the key by which the same command takes up
the job again, and what signals mean; draws nothing.

The first Ctrl-C (or SIGTERM) cancels the job: that is recorded at once, and the code stops at its next cancel point.
The second one, or the end of the grace time, raises KeyboardInterrupt where the code is.
"""

from __future__ import annotations

import _thread
import asyncio
import getpass
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from types import FrameType
from typing import TYPE_CHECKING, Any

from milepost.cli import wording
from milepost.core.errors import JobCancelled, Refused, StoreError
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import Select
from milepost.stores.query import Query
from milepost.tracking.run import Run, hear_in_task

if TYPE_CHECKING:
    from milepost.cli.known_types import LocalType
    from milepost.cli.session import Session

KEY_MAX = 400
TAKEN_UP = ("running", "failed", "cancelled")


def job_key(job_type: str, params: Mapping[str, Any]) -> str:
    """The unique key of a command: its type with its parameters, as a digest when that is long."""
    text = f"{job_type} {json.dumps(params, sort_keys=True, ensure_ascii=True)}"
    return text if len(text) <= KEY_MAX else f"{job_type} {blake2b(text.encode(), digest_size=16).hexdigest()}"


def title_of(params: Mapping[str, Any]) -> str | None:
    """What a run of these parameters is called in lists."""
    for value in params.values():
        if isinstance(value, str) and value:
            return os.path.basename(value.rstrip("/")) or value
        if isinstance(value, list) and value and isinstance(value[0], str):
            first = os.path.basename(value[0].rstrip("/")) or value[0]
            return first if len(value) == 1 else f"{first} and {wording.number(len(value) - 1)} more"
    return None


class Execution:
    """One run of one command. `run` is there once the job is ours; `notices` is what its user should know."""

    def __init__(self, session: Session, local: LocalType, params: dict[str, Any], labels: Mapping[str, str]) -> None:
        self.local = local
        self.notices: list[str] = []
        self.run: Run | None = None
        self.signalled: int | None = None
        self.began = datetime.now(UTC)
        self._session = session
        self._params = params
        self._labels = dict(labels)
        self._values = local.read(params)
        shown = {name: "***" if name in local.secrets else value for name, value in params.items()}
        self._metadata = {"title": title_of(shown) or local.job_type, "params": shown, "cwd": os.getcwd()}
        self._key = job_key(local.job_type, params)
        self._ended = threading.Event()
        self._waits = False

    @property
    def stopping(self) -> bool:
        """Whether the code was told to stop and has not done so yet."""
        return self.run is not None and self.run.cancelled and not self._ended.is_set()

    @property
    def job(self) -> Job | None:
        """The job as its run knows it, ahead of the store; None before it has begun."""
        run = self.run
        if run is None:
            return None
        foreseen = Job.stored(run.job_id, run.foreseen)
        return Job(
            run.job_id, run.job_type, JobStatus.RUNNING, run.fraction, run.message, self.began, self.began,
            metadata=self._metadata, attempt=run.attempt, stages=run.stages, eta=foreseen.eta, stalled=foreseen.stalled,
        )  # fmt: skip

    def execute(self) -> None:
        """Run the job to its end. Raises what the code raised, a Stop when it was cancelled, and why it cannot start."""
        earlier = self._earlier()
        if earlier is not None and earlier.status is JobStatus.RUNNING:
            self._say_waiting(earlier)
        with self._signals():
            try:
                with self._session.manager.track(
                    self.local.job_type, key=self._key, metadata=self._metadata, labels=self._labels
                ) as run:
                    if earlier is not None and earlier.job_id == run.job_id:
                        self.notices.append(_taken_up(earlier))
                    self.began = datetime.now(UTC)
                    self.run = run
                    if self.local.is_async:
                        asyncio.run(self._awaited(run))
                    else:
                        run.result = self.local.function(run, **self._values)
            finally:
                self._ended.set()

    async def _awaited(self, run: Run) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio.run makes one"
        hear_in_task(run, task, asyncio.get_running_loop())
        try:
            run.result = await self.local.function(run, **self._values)
        except asyncio.CancelledError:
            if run.stops:
                raise run.stops[0] from None
            raise
        finally:
            run.on_stop = None

    def _earlier(self) -> Job | None:
        """The job that this key would take up."""
        key = self._key
        query = Query(Select((self.local.job_type,), TAKEN_UP), (lambda job: job.unique_key == key,))
        found = self._session.manager.find(query, 1).jobs
        return found[0] if found else None

    def _say_waiting(self, job: Job) -> None:
        """Say, unless it is over in a moment, that the lease of a run before is waited for."""

        def say() -> None:
            if self.run is None and not self._ended.is_set():
                left = ""
                if job.lease_expires_at is not None:
                    seconds = max(1.0, (job.lease_expires_at - datetime.now(UTC)).total_seconds())
                    left = f", in at most {wording.briefly(seconds)}"
                self.notices.append(
                    f"Job {job.job_id} of this command was not heard to end; waiting until its lease runs out{left}"
                )

        timer = threading.Timer(0.5, say)
        timer.daemon = True
        timer.start()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM as a cancel of the job while it runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        again, self.signalled = self.signalled is not None, self.signalled or number
        if self.run is None or again or self._ended.is_set():
            raise KeyboardInterrupt
        threading.Thread(target=self._cancel, args=(self.run, number), name="milepost-cancel", daemon=True).start()

    def _cancel(self, run: Run, number: int) -> None:
        """Record the cancel, tell the code, and interrupt it when it has not stopped within the grace time."""
        why = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        manager = self._session.open()
        try:
            manager.cancel_job(run.job_id, why, by=user_name())
            run.stop(JobCancelled(f"cancelled: {why}"))
        except Refused:
            return  # it has ended meanwhile
        except StoreError:
            _thread.interrupt_main()  # nothing could be recorded: the end of the block tries to
            return
        finally:
            manager.close()
        if not self._ended.wait(manager.settings.grace):
            _thread.interrupt_main()


def _taken_up(earlier: Job) -> str:
    """What is said of a job that is taken up again."""
    done = [stage for stage in earlier.stages if stage.total and stage.ended_at is None]
    how_far = wording.percent(earlier.progress)
    if done:
        how_far += f", {wording.units(done[-1].done, done[-1].total, done[-1].unit)}"
    lost = earlier.status is JobStatus.RUNNING or (earlier.failure is not None and earlier.failure.kind == "lost")
    what = "its process died" if lost else "it failed" if earlier.status is JobStatus.FAILED else "it was cancelled"
    return f"Taking up job {earlier.job_id} again: {what} at {how_far}"


def user_name() -> str:
    """Who cancels: the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "the command line"
