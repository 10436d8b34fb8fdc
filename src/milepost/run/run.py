"""The Run: the object that job code gets, which keeps progress, stages, items and log lines in memory.

The heartbeat sends them to the store. Only `checkpoint` and `acheckpoint` wait for the store.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from milepost.core.defaults import OUTPUT_BYTES
from milepost.core.errors import BudgetExceededError, InvalidInputError, JobReleased, JobSuspended, RunStop
from milepost.core.html import bar
from milepost.core.job import Job, JobStatus, Stage
from milepost.core.serialization import (
    from_json,
    from_micros,
    printable,
    safe_str,
    single_line,
    truncate,
)
from milepost.forks import ForkSafeLock
from milepost.run import context
from milepost.run.checkpoint_mixin import CheckpointMixin
from milepost.run.checkpoints import CheckpointWriter
from milepost.run.child_mixin import ChildMixin
from milepost.run.command import CommandMixin
from milepost.run.crash_report import masked, masked_line, redacted, secret_values_of
from milepost.run.each import NAME_BYTES
from milepost.run.items import Ledger
from milepost.run.loop_mixin import LoopMixin
from milepost.run.loops import RunLoops
from milepost.run.output import Output, OutputMixin
from milepost.run.repeated_work import KeptWork
from milepost.run.report import LogBuffer, build_report, log_level
from milepost.run.results import Budget, part_key
from milepost.run.stages import LiveStage, ProgressMixin, flatten_stages
from milepost.run.step_mixin import StepMixin
from milepost.run.usage import BudgetSpent, Usage, UsageMixin

if TYPE_CHECKING:
    from milepost.run.children import ChildJobs
    from milepost.run.questions import Questions
    from milepost.run.steps import Steps
    from milepost.run.transaction import RunTransaction

T = TypeVar("T")

RECENT_LOG_LINES = 20
LOG_LINE_BYTES = 4096

log = logging.getLogger("milepost.run")
log.addHandler(logging.NullHandler())


class Run(ProgressMixin, CommandMixin, LoopMixin, StepMixin, CheckpointMixin, ChildMixin, OutputMixin, UsageMixin):
    """One attempt at a job, as its code sees it.

    `last_checkpoint` is the value that an earlier attempt recorded last, or None. Set `result` to the result of the job
    (JSON). `fence` is a fencing token: it grows with each run of the job, so that a storage of your own can refuse
    writes with a lower one.
    """

    _captures: frozenset[str] | None = None
    """What is captured while the code runs, as in `Settings.capture`; None before it starts and after it has ended."""
    _redact: Callable[[str], str] | None = None
    """The redaction hook for log lines, names of captured bars and errors."""

    _output: Output | None = None
    _usage: Usage | None = None
    _over_budget: BudgetExceededError | BudgetSpent | None = None
    """What cancellation points raise because a budget is spent."""
    _output_bytes = OUTPUT_BYTES
    _making = ForkSafeLock()
    """Held while the output, the usage, the steps, questions or children of any run are made at their first use: a run has
    one of each, whichever of its threads comes first."""

    _can_suspend = False
    """Whether a worker can start the code again."""

    _task_queues: Mapping[str, str] = {}
    """The task queue that runs children of a job type; milepost's workers run those of other types."""

    _follow_up: Callable[[RunStop], None] | None = None
    """Called after `stop`, so that a task queue can end code that ignores it."""

    def __init__(
        self,
        job: Job,
        token: str,
        checkpoint_writer: CheckpointWriter,
        *,
        plan: Mapping[str, float] | None = None,
    ) -> None:
        record = job.record
        self.job_id = job.job_id
        self.job_type = record.get("type", "")
        self.attempt = job.attempt
        self.token = token
        self._job = job
        self.last_checkpoint: Any = from_json(record["checkpoint"]) if record.get("checkpoint") else None
        at = record.get("checkpoint_at")
        self._checkpoint_at: str | None = from_micros(int(at)).isoformat() if at else None
        self.result: Any = None
        self.ledger = Ledger()
        """The counts of processed, skipped and failed items."""
        self.recent_log: deque[str] = deque(maxlen=RECENT_LOG_LINES)
        """The newest log lines."""
        self._checkpoint_writer = checkpoint_writer
        self._transaction: RunTransaction | None = None
        self._is_finishing = False
        """Whether the result was written in a transaction that may be open, which reports would wait for."""
        self._pid = os.getpid()
        self._plan = dict(plan or {})
        self._loops = RunLoops(record, self.ledger)
        self._budget = Budget()
        self._steps: Steps | None = None
        self._children: ChildJobs | None = None
        self._questions: Questions | None = None
        self._kept_steps: str | None = record.get("steps")
        """The kept steps as the record has them."""
        self._numbers = itertools.count(1)
        self._unreportable: set[str] = set()
        self._last_report: dict[str, str] = {"progress": "0.0"}
        """The report fields that failed to serialise, and the last report; see `report.py`."""
        self._stages: list[LiveStage] = []
        self._stages_by_age: list[LiveStage] = []
        self._open: list[LiveStage] = []
        self._fraction = self._reached = 0.0
        self._message: str | None = None
        self._log_buffer = LogBuffer()
        self._secret_values: tuple[str, ...] = (
            secret_values_of(record.get("params", "{}"), record["secrets"]) if "secrets" in record else ()
        )
        """The values of secret parameters, which are masked in everything that the run reports."""
        self._forecast: Mapping[str, str] = {}
        """The forecast of the heartbeat: `eta` and `stalled`, as fields of the record."""
        self._threads: set[Future[Any]] = set()
        """The calls in threads that the code has started from an event loop."""
        self._unawaited: Counter[str] = Counter()
        """The calls that returned a coroutine which has not started."""
        self._started_in: context.ThreadAndTask | None = None
        """Where the code was started; only there it can be suspended."""
        self._began = time.monotonic()
        self._kept_work = KeptWork()
        self._stop_reasons: list[RunStop] = []
        self._on_stop: Callable[[RunStop], None] | None = None

    @property
    def resumed(self) -> bool:
        """Return whether the run continues where an earlier attempt ended."""
        return self.last_checkpoint is not None or self._loops.continues or "steps" in self._job.record

    @property
    def _planned(self) -> bool:
        """Return whether all stages were named in advance."""
        return bool(self._plan)

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the metadata that the job was created with."""
        return self._job.metadata or {}

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels of the job."""
        return self._job.labels

    @property
    def origin(self) -> str:
        """Return ``api`` for a job that came over HTTP, whose paths and URLs must not be trusted, else ``local``."""
        return self._job.origin

    @property
    def scheduled_at(self) -> datetime | None:
        """Return the tick of the schedule that the job was made for, or None."""
        return self._job.scheduled_at

    @property
    def trace(self) -> str | None:
        """Return the `traceparent` that the job was submitted with, or None."""
        return self._job.trace

    # --- reporting ---

    @property
    def fence(self) -> int:
        """Return the fencing token of this attempt."""
        return int(self.token.partition(":")[0])

    @property
    def cancelled(self) -> bool:
        """Return whether the code should stop: a cancellation point that does not raise."""
        return bool(self._stop_reasons)

    def check(self) -> None:
        """Raise JobCancelled (or another RunStop) if the code should stop: a cancellation point for your own loops.

        Raises BudgetExceededError if the run has spent more than the budget of its job.
        """
        if self._stop_reasons:
            raise self._stop_reasons[0]
        if self._over_budget is not None:
            self._raise_over_budget()

    def stage(
        self, name: str, *, weight: float | None = None, total: float | None = None, unit: str = "item"
    ) -> LiveStage:
        """Open a stage: ``with run.stage("Embedding", weight=9, total=412, unit="chunk") as stage``. Stages nest.

        `weight` is the stage's share of 1, of 10 or of 100, whichever is the least that holds all weights. For other
        sums name all stages beforehand with `plan`.
        """
        self.check()
        masked_name = masked(name, self._secret_values) if isinstance(name, str) else name
        return self._enter(
            LiveStage(masked_name, weight, total, unit, self._innermost, self._stop_reasons, self._leave)
        )

    def _refuse_fork(self, name: str) -> None:
        """Raise InvalidInputError in a forked process, which cannot write for the run."""
        if os.getpid() != self._pid:
            raise InvalidInputError(
                name, f"process {os.getpid()} was forked from process {self._pid}, which executes the run; "
                f"call {name}() there"
            )  # fmt: skip

    @property
    def _has_own_checkpoint(self) -> bool:
        """Whether this attempt or an earlier one recorded a checkpoint outside of a loop."""
        earlier = self.last_checkpoint is not None and not self._loops.checkpoint_was_in_loop
        return earlier or (self._checkpoint_at is not None and self._loops.checkpoint_in_loop is False)

    def _check_cancel(self) -> None:
        """Raise as `check`, but no RunStop for which the task of the code gets a CancelledError."""
        if self._stop_reasons and (self._on_stop is None or isinstance(self._stop_reasons[0], JobSuspended)):
            raise self._stop_reasons[0]
        if self._over_budget is not None:
            self._raise_over_budget()

    def log(self, text: str, level: str = "info") -> None:
        """Add lines to the job's log, one for each line of the text. Never raises and never waits.

        `level` is debug, info, warning, error or critical. Another one is logged, and its lines have the level info.
        """
        self._log(text, log_level(level))

    def _log(self, text: str, level: str, **facts: int) -> None:
        """Add lines to the job's log as `log` does, with facts for programs beside the text."""
        head = {"at": datetime.now(UTC).isoformat(), "level": single_line(level, 40)}
        for whole in printable(redacted(safe_str(text), self), 16 * LOG_LINE_BYTES).splitlines() or [""]:
            line = truncate(whole, LOG_LINE_BYTES)
            self.recent_log.append(line)
            self._log_buffer.add([{**head, "text": line, **facts}])

    def _awaited(self, name: str, call: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return a coroutine for a call, and count it as forgotten until it is awaited."""
        self._unawaited[name] += 1

        async def awaited() -> T:
            self._unawaited[name] -= 1
            return await call

        return awaited()

    def _unawaited_call(self) -> InvalidInputError | None:
        """Return the error of a call whose `await` was forgotten, or None. Python only warns, and not in the log of the job."""
        for name, calls in self._unawaited.items():
            if calls > 0 and not self._stop_reasons:
                return InvalidInputError(
                    f"run.{name}()", f"was called without await and had no effect; write await run.{name}(...)"
                )
        return None

    # --- current state ---

    @property
    def message(self) -> str:
        """Return the last message that the code reported; empty if there is none."""
        return self._message or ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages so far, as watchers see them."""
        return tuple(Stage(**stage.to_dict()) for stage in flatten_stages(self._stages))

    @property
    def _stage_name(self) -> str | None:
        """Return the name of the innermost open stage, or None."""
        own = self._open[-1] if self._open else None
        below = own.children if own is not None else self._stages
        bars = [stage for stage in flatten_stages(below) if stage.captured and stage.is_open]
        return bars[-1].name if bars else own.name if own is not None else None

    @property
    def _last_item(self) -> str | None:
        """Return the key of the last finished item, or None."""
        for loop in reversed(list(self._loops.each.values())):
            if (last := loop.last()) is not None:
                return masked_line(loop.name_of_last(last), self._secret_values, NAME_BYTES)
        return None

    def _report(self) -> dict[str, str]:
        """Return the report of the run as fields of the record. Never raises."""
        return build_report(self)

    def _take_lines(self) -> str | None:
        """Return the log lines since the last call, as JSON; None if there are none."""
        return self._log_buffer.take()

    def _log_unreportable(self, what: str, error: Exception) -> None:
        """Log once that a part of the report cannot be serialised."""
        if what not in self._unreportable:
            self._unreportable.add(what)
            problem = single_line(redacted(f"{type(error).__name__}: {safe_str(error)}", self), 400)
            self.log(f"could not report {what}: {problem}", "warning")
            log.warning("job %s: could not report %s: %s", self.job_id, what, problem)

    def _take_parts(self, *, at_end: bool = False) -> list[tuple[str, str]]:
        """Return the kept results to write beside the record, each with its key."""
        maps = () if at_end else list(self._loops.maps.values())
        parts = [part for mapped in maps for part in mapped.results.take_parts()]
        return [(part_key(self.job_id, name), text) for name, text in parts]

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop. The first reason wins. Called by the heartbeat and by workers."""
        suspended = bool(self._stop_reasons) and isinstance(self._stop_reasons[0], JobSuspended)
        if not self._stop_reasons or (suspended and not isinstance(reason, JobReleased)):
            self._stop_reasons.insert(0, reason)
            for loop in list(self._loops.each.values()):
                loop.notify_stop()
            if self._on_stop is not None:
                self._on_stop(reason)
            if self._follow_up is not None:
                self._follow_up(reason)

    def _activity(self) -> str:
        now = datetime.now(UTC)
        return Job(
            self.job_id, self.job_type, JobStatus.RUNNING, self.fraction, self.message, now, stages=self.stages
        ).activity

    def _repr_html_(self) -> str:
        status = "ended" if self._captures is None else "stopping" if self._stop_reasons else "running"
        says = self._message or "" if status == "ended" else self._activity()
        return bar(
            self.job_id,
            self.job_type,
            status,
            self.fraction if status == "ended" else self._shown_fraction,
            redacted(says, self),
            self.stages,
        )

    def _ipython_display_(self) -> None:
        from milepost.notebook import show_run

        show_run(self)

    def __repr__(self) -> str:
        return f"<Run {self.job_type} {self.job_id} attempt {self.attempt} {self.fraction:.0%}>"


def current_run() -> Run:
    """Return the run of the job that the calling code belongs to; outside of a job, one that reports nothing."""
    run = context.current()
    return (
        run
        if run is not None
        else Run(Job.stored("none", {"type": "none", "progress": "0"}), "0:none", CheckpointWriter())
    )
