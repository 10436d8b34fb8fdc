"""`milepost cancel ID...`: cancel jobs, and on request wait for the receipts."""

from __future__ import annotations

import json
import sys
import time

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.console import STYLES, glyph
from milepost.cli.drawing.views import ended_text, say
from milepost.cli.naming import chosen_jobs, jobs_argument
from milepost.cli.session import Session, current, session_options
from milepost.cli.sure import agreed
from milepost.core.errors import IllegalTransition, JobNotFound
from milepost.core.job import Job

LOOK = 0.1
WAIT_MOST = 60.0


@click.command("cancel")
@jobs_argument
@click.option("--reason", help="Why; the receipt keeps it.")
@click.option("--wait", is_flag=True, help="Wait until the code has stopped, or for a minute (exit code 124).")
@click.option("--yes", is_flag=True, help="Do not ask, though a filter chose the jobs.")
@session_options
def command(words: tuple[str, ...], reason: str | None, wait: bool, yes: bool) -> int:
    """Cancel jobs: final at once; the running code is told and stops at its next cancel point.

    With a filter it first says how many jobs that is.
    """
    session = current()
    jobs, by_filter = chosen_jobs(session, words)
    active = [job for job in jobs if not job.is_terminal]
    if by_filter:
        jobs = active
        if not agreed(session, "cancel", jobs, "pending or running", yes=yes):
            return exits.OK
    code = exits.OK
    cancelled: list[Job] = []
    for job in jobs:
        try:
            cancelled.append(session.manager.cancel_job(job.job_id, reason, by=_me()))
        except (IllegalTransition, JobNotFound) as refused:
            if by_filter:
                continue  # it has ended since it was found
            sys.stderr.write(f"milepost: {job.job_id}: {refused}\n")
            code = exits.FAILED
    if wait:
        late = _await(session, cancelled)
        code = exits.TIMED_OUT if late else code
    for job in cancelled:
        _tell(session, session.manager.get_job(job.job_id) or job)
    return code


def _me() -> str:
    from milepost.cli.execution import user_name

    return user_name()


def _await(session: Session, jobs: list[Job]) -> bool:
    """Wait for the receipts; whether one is still missing after a minute."""
    deadline = time.monotonic() + WAIT_MOST
    waiting = [job.job_id for job in jobs]
    while waiting:
        job = session.manager.get_job(waiting[-1])
        if job is None or job.receipt is None or job.receipt.confirmed is not None:
            waiting.pop()
        elif time.monotonic() > deadline:
            sys.stderr.write(f"milepost: {wording.plural(len(waiting), 'job')} not heard to stop within a minute\n")
            return True
        else:
            time.sleep(LOOK)
    return False


def _tell(session: Session, job: Job) -> None:
    if session.json:
        say(json.dumps(job.to_dict(), ensure_ascii=False))
        return
    from rich.text import Text

    line = Text(glyph(session.console, job.status.value) + " ", STYLES[job.status.value])
    session.console.print(line.append(f"{job.job_id}  ").append(ended_text(job)))
