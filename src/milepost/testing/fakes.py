"""A clock that a test moves, and a Run for the tests of job code without store, worker or clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Self, TypedDict, Unpack

from milepost.core.errors import InvalidInputError, JobCancelled
from milepost.core.job import Job
from milepost.core.serialization import Duration, from_json, from_micros, labels_text, seconds, to_json, to_micros
from milepost.core.values import Question
from milepost.run.async_run import AsyncRun
from milepost.run.checkpoints import CheckpointWriter, Parts
from milepost.run.questions import Ask, questions_text
from milepost.run.results import KeptResult
from milepost.run.run import Run
from milepost.run.typed_values import encode


class FrozenClock:
    """Returns microseconds since 1970 that do not advance by themselves, as in ``MemoryStore(clock=FrozenClock())``."""

    def __init__(self, micros: int = 1_750_000_000_000_000) -> None:
        self.on_move: list[Callable[[], None]] = []
        """Functions to call after each move."""
        self._micros = micros
        self._lock = threading.Lock()

    def __call__(self) -> int:
        return self._micros

    @property
    def now(self) -> datetime:
        """Return the time of the clock, in UTC."""
        return from_micros(self._micros)

    def advance(self, by: Duration) -> int:
        """Move the clock by a duration (90, "2h", a timedelta), or back if negative; return the new microseconds."""
        step = by if isinstance(by, int | float) else seconds(by, "by")
        with self._lock:
            self._micros += round(step * 1_000_000)
        self._moved()
        return self._micros

    def move_to(self, time: int | datetime) -> None:
        """Set the clock to a time, as a datetime or in microseconds since 1970."""
        micros = time if isinstance(time, int) else to_micros(time, "time")
        with self._lock:
            self._micros = micros
        self._moved()

    def _moved(self) -> None:
        for notify in self.on_move:
            notify()


class FakeRun(Run):
    """A Run that keeps its checkpoints in `checkpoints`, the keys of its kept steps in `steps` and its reported progress in
    `progress_seen`.
    """

    def __init__(self, job: Job) -> None:
        self.checkpoints: list[Any] = []
        self.steps: list[str] = []
        self.slept: list[float] = []
        """The seconds of each `sleep`, which returns at once."""
        self.asked: list[str] = []
        """The keys of the questions that had no answer yet."""
        self.outputs: list[str] = []
        """The texts of `output`."""
        self._seen: list[float] = []
        super().__init__(job, "1:fake", _RecordingCheckpointWriter())

    @property
    def progress_seen(self) -> list[float]:
        """Return the fractions that the code has reported, and the current fraction last."""
        return [*self._seen, self.fraction]

    @property
    def log_lines(self) -> list[str]:
        """Return the newest log lines."""
        return list(self.recent_log)

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Report progress, as `Run.progress` does, and keep the fraction."""
        super().progress(fraction, message)
        if fraction is not None:
            self._seen.append(self.fraction)

    @property
    def _recorder(self) -> _RecordingCheckpointWriter:
        assert isinstance(self._checkpoint_writer, _RecordingCheckpointWriter), "made by fake_run"
        return self._checkpoint_writer

    def _add_output(self, text: str, lost: int = 0) -> None:
        self.outputs.append(text)

    def _wait_in_place(self, left: float) -> None:
        self.slept.append(left)
        self._recorder.clock.advance(left)

    async def _await_in_place(self, left: float) -> None:
        self._wait_in_place(left)

    def _wait_for_answer(self, ask: Ask) -> None:
        """Let a question without an answer expire."""
        if not self._recorder.expire():
            raise InvalidInputError(
                "answers", f"no answer to {ask.key!r:.80}; give fake_run(answers={{{ask.key!r:.80}: ...}})"
            )

    async def _await_answer(self, ask: Ask) -> None:
        self._wait_for_answer(ask)

    def cancel(self, reason: str = "cancelled by the test") -> None:
        """Stop the code, as a cancel of the job does."""
        self.stop(JobCancelled(reason))

    def heartbeat(self) -> None:
        """Report as the heartbeat does five times a second: a loop with `state` takes its position before its next item."""
        self._report()

    def next_attempt(self) -> Self:
        """Return the run of the next attempt, which continues with the loops, maps, steps, state and checkpoint of this one.

        A loop with ``resume=True`` continues at the item that was not finished, one with `state` at the last heartbeat.
        """
        record = {**self._job.record, **self._report(), "attempt": str(self.attempt + 1)}
        if self._kept_steps is not None:
            record["steps"] = self._kept_steps
        if self._questions is not None:
            record["questions"] = questions_text(self._questions.kept)
        if self.checkpoints:
            record["checkpoint"] = to_json(self.checkpoints[-1], "last_checkpoint")
        again = type(self)(Job.stored(self.job_id, record))
        again._checkpoint_writer = self._checkpoint_writer
        return again


class _RecordingCheckpointWriter(CheckpointWriter):
    """Keeps the checkpoints and the keys of steps in the run, and the parts of steps for the next attempt."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._questions: dict[str, Any] = {}
        self.clock = FrozenClock(time.time_ns() // 1000)

    def checkpoint(self, run: Run, text: str) -> None:
        assert isinstance(run, FakeRun), "made by fake_run"
        run.checkpoints.append(from_json(text))
        run._seen.append(run.fraction)

    def keep_step(self, run: Run, steps: str, key: str, parts: Parts) -> None:
        assert isinstance(run, FakeRun), "made by fake_run"
        run.steps.append(from_json(key)["key"])
        run._kept_steps = steps
        self._parts.update(parts)

    def read(self, run: Run, key: str) -> str | None:
        return self._parts.get(key)

    def write_question(self, run: Run, values: Mapping[str, Any]) -> bool:
        assert isinstance(run, FakeRun), "made by fake_run"
        if "expires" in values and values["key"] not in run.asked:
            run.asked.append(values["key"])
        self._questions = dict(values)
        return True

    def now(self, run: Run) -> int:
        return self.clock()

    def expire(self) -> bool:
        """Move the clock to the time at which the question expires; return False if it never does."""
        expires: int | None = self._questions.get("expires")
        if expires is not None:
            self.clock.move_to(expires)
        return expires is not None


class FakeAsyncRun(AsyncRun, FakeRun):
    """A FakeRun for async job code, whose calls that wait are awaited."""


class FakeOptions(TypedDict, total=False):
    """What `fake_run` and `fake_async_run` take.

    - `job_type`, `job_id`, `attempt`, `metadata`, `labels`: of the job.
    - `last_checkpoint`: the checkpoint of an earlier attempt.
    - `steps`: the values (plain JSON) that an earlier attempt kept, by their keys, whatever the arguments are.
    - `answers`: the answers (plain JSON) to the questions of `ask`, by their keys. A question without one expires at once.
    - `only`: the keys of the items to process, as after ``retry_job(only_failed=True)``.
    """

    job_type: str
    job_id: str
    attempt: int
    last_checkpoint: Any
    steps: Mapping[str, Any] | None
    answers: Mapping[str, Any] | None
    metadata: Mapping[str, Any] | None
    labels: Mapping[str, str] | None
    only: Iterable[str] | None


def fake_run(**options: Unpack[FakeOptions]) -> FakeRun:
    """Return a Run to pass to job code in a test: ``reindex(fake_run(last_checkpoint=40), index="docs")``."""
    return FakeRun(_fake_job(**options))


def fake_async_run(**options: Unpack[FakeOptions]) -> FakeAsyncRun:
    """Return the run to pass to async job code: ``await import_all(fake_async_run(), folder="in")``."""
    return FakeAsyncRun(_fake_job(**options))


def _fake_job(
    *,
    job_type: str = "test",
    job_id: str = "fake",
    attempt: int = 1,
    last_checkpoint: Any = None,
    steps: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
) -> Job:
    record = {
        "type": job_type,
        "status": "running",
        "progress": "0",
        "attempt": str(attempt),
        "created": "0",
        "metadata": to_json(dict(metadata or {}), "metadata"),
        "labels": labels_text(labels),
    }
    if last_checkpoint is not None:
        record["checkpoint"] = to_json(last_checkpoint, "last_checkpoint")
    if steps is not None:
        kept = [KeptResult(key, None, None, encode(value, f"steps.{key}")) for key, value in steps.items()]
        record["steps"] = to_json({"values": kept}, "steps")
    if answers is not None:
        record["questions"] = questions_text(
            {key: Question(key, state="early", answer=answers[key]) for key in answers}
        )
    if only is not None:
        record["only_keys"] = to_json(list(only), "only")
    return Job.stored(job_id, record)
