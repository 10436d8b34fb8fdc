"""Asking before many jobs are changed at once: the true counts first, and a yes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from milepost.cli import wording
from milepost.core.job import Job, JobStatus

if TYPE_CHECKING:
    from milepost.cli.session import Session


def counted(jobs: Sequence[Job]) -> str:
    """How many jobs of which status: ``3 jobs (2 failed, 1 running)``."""
    statuses = Counter(job.status.value for job in jobs)
    parts = ", ".join(f"{wording.number(statuses[name])} {name}" for name in JobStatus if statuses[name])
    return f"{wording.plural(len(jobs), 'job')} ({parts})" if jobs else "no jobs"


def agreed(session: Session, verb: str, jobs: Sequence[Job], kinds: str, *, yes: bool) -> bool:
    """Whether to go on. Says the counts; asks on a terminal, and without one needs ``--yes``."""
    if not jobs:
        sys.stderr.write(f"milepost: nothing to {verb}: no {kinds} job matches\n".replace("no  job", "no job"))
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {counted(jobs)}; add --yes to do it")
    sys.stderr.write(f"This will {verb} {counted(jobs)}.\n")
    return click.confirm("Go on?", default=False, err=True)
