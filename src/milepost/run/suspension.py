"""Suspend a run: its code returns, its worker is free, and the job starts again when its time has come.

Only the code of the run itself can be suspended, in the thread or task in which it was started: other threads and tasks
would continue. Where no worker can start the code again (a tracked block, a task under `@tracked`), the run waits in place.

A job that snoozes again and again for less than a second waits longer each time, so that no loop is tight.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from milepost.core.errors import InvalidInputError, JobSuspended, RunStop, Snooze
from milepost.core.serialization import Duration, from_micros, seconds
from milepost.run.context import thread_and_task
from milepost.run.crash_report import leaves
from milepost.run.cursor import current_loop
from milepost.run.steps import Step, is_in_step

if TYPE_CHECKING:
    from milepost.run.run import Run


class Sleep:
    """One call of `run.sleep`. Its deadline is kept as a step: stamped by the store's clock at the first call."""

    def __init__(self, run: Run, key: str, duration: Duration) -> None:
        refuse_elsewhere(run, "sleep")
        self._run = run
        self._key = key
        self._step = Step(run, key, self._deadline, (seconds(duration, "duration"),), "raise")

    def _deadline(self, duration: float) -> int:
        return self._run._checkpoint_writer.now(self._run) + int(duration * 1_000_000)

    def left(self) -> float:
        """Return the seconds until the deadline. Raises JobSuspended instead, if the run can be suspended and any are left."""
        wake_at: int = self._step.call()
        left = wake_at - self._run._checkpoint_writer.now(self._run)
        if left > 0 and self._run._can_suspend:
            self._run._suspend(JobSuspended(wake_at), f"sleep({self._key!r:.80})")
        return left / 1_000_000


def refuse_elsewhere(run: Run, name: str) -> None:
    """Raise InvalidInputError in code that a suspension of the run would not end."""
    place = current_loop(run._loops.places)
    where = None
    if is_in_step():
        where = "in a function given to run.step"
    elif place is not None and place.name in run._loops.maps:
        where = "in a function given to run.map"
    elif run._started_in is not None and run._started_in != thread_and_task():
        where = "in another task or thread than that of the handler"
    if where is not None:
        raise InvalidInputError(f"run.{name}()", f"cannot suspend the job {where}; call it in the handler itself")


def of_group(error: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what an exception group stands for that holds nothing but stops or snoozes, as `asyncio.TaskGroup` raises it."""
    found = leaves(error)
    if all(isinstance(leaf, RunStop) for leaf in found):
        return found[0]
    snoozes = [leaf for leaf in found if isinstance(leaf, Snooze)]
    return max(snoozes, key=lambda leaf: leaf.delay) if len(snoozes) == len(found) else error


SHORT_SNOOZE = 1.0
"""Seconds from which on a snooze is as long as its handler says."""
UNPAUSED_RUNS = 10
"""The runs in a row after which the pause begins, at a second; it doubles with each further run."""
LONGEST_PAUSE = 300.0


def snooze_micros(run: Run, asked: float) -> int:
    """Return the microseconds until the next run of a job whose handler asked for some seconds.

    They are longer if it asks for short ones again and again, but not if this run kept a step or a checkpoint.
    """
    if asked < SHORT_SNOOZE and not _has_kept(run):
        asked = max(asked, _pause(_runs_in_a_row(run)))
    return int(asked * 1_000_000)


def _pause(runs: int) -> float:
    return 0.0 if runs <= UNPAUSED_RUNS else min(LONGEST_PAUSE, 2.0 ** (runs - UNPAUSED_RUNS - 1))


def _runs_in_a_row(run: Run) -> int:
    """Return how many runs of this attempt followed each other as soon as they could, this one included.

    A run that came much later followed a snooze that the handler had asked for.
    """
    runs = 1
    for before, after in pairwise(run._job.attempts):
        ended, started = before.ended_at, after.started_at
        gap = (started - ended).total_seconds() if started and ended else 0.0
        is_next = before.attempt == after.attempt and gap < SHORT_SNOOZE + 2 * _pause(runs)
        runs = runs + 1 if is_next else 1
    return runs


def _has_kept(run: Run) -> bool:
    record = run._job.record
    before = record.get("checkpoint_at")
    at = from_micros(int(before)).isoformat() if before else None
    return run._kept_steps != record.get("steps") or run._checkpoint_at != at
