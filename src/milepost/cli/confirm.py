"""Confirmation of changes to many jobs at once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from milepost.cli import formatting
from milepost.core.job import Job, JobStatus

if TYPE_CHECKING:
    from milepost.cli.context import CommandContext


def count_by_status(jobs: Sequence[Job]) -> str:
    """Return the number of jobs by status: ``3 jobs (2 failed, 1 running)``."""
    statuses = Counter(job.status.value for job in jobs)
    parts = ", ".join(f"{formatting.number(statuses[name])} {name}" for name in JobStatus if statuses[name])
    return f"{formatting.plural(len(jobs), 'job')} ({parts})" if jobs else "no jobs"


def confirm_change(context: CommandContext, verb: str, jobs: Sequence[Job], kinds: str, *, yes: bool) -> bool:
    """Return whether to proceed. Asks on a terminal; raises UsageError without a terminal and ``--yes``."""
    if not jobs:
        sys.stderr.write(f"milepost: nothing to {verb}: no {kinds} jobs match\n".replace("no  jobs", "no jobs"))
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {count_by_status(jobs)}; confirm with --yes")
    sys.stderr.write(f"This will {verb} {count_by_status(jobs)}.\n")
    return click.confirm("Continue?", default=False, err=True)
