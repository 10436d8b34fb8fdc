"""The pause before the next run of a job that snoozes again and again for less than a second, so that no loop is tight."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from milepost.core.serialization import from_micros

if TYPE_CHECKING:
    from milepost.run.run import Run

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
