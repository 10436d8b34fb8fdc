"""The pause before the next run of a job that snoozes again and again for less than a second, so that no loop is tight."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from milepost.core.serialization import from_micros

if TYPE_CHECKING:
    from milepost.run.run import Run

SHORT_SNOOZE = 1.0
"""Seconds from which on a snooze is as long as its handler says."""
UNPAUSED_RUNS = 10
"""The runs in a row after which the pause begins, at a second; it doubles with each further run."""
LONGEST_PAUSE = 300.0


def snooze_seconds(run: Run, asked: float) -> float:
    """Return the seconds until the next run of a job whose handler asked for some, but not if this run kept a step or a checkpoint."""
    if asked >= SHORT_SNOOZE or _has_kept(run):
        return asked
    runs = len(list(takewhile(lambda one: one.attempt == run.attempt, reversed(run._job.attempts))))
    if runs <= UNPAUSED_RUNS:
        return asked
    return max(asked, min(LONGEST_PAUSE, 2.0 ** (runs - UNPAUSED_RUNS - 1)))


def _has_kept(run: Run) -> bool:
    record = run._job.record
    before = record.get("checkpoint_at")
    at = from_micros(int(before)).isoformat() if before else None
    return run._kept_steps != record.get("steps") or run._checkpoint_at != at
