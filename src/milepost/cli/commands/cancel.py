"""`milepost cancel ID...`: cancel jobs and optionally wait for their receipts."""

from __future__ import annotations

import sys
import time

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.confirm import confirm_change
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import jobs_argument, select_jobs
from milepost.cli.rendering.live import echo_json, ended_text
from milepost.cli.rendering.terminal import STYLES, glyph
from milepost.core.errors import IllegalTransitionError, JobNotFoundError
from milepost.core.job import Job

POLL_INTERVAL = 0.1
MAX_WAIT_SECONDS = 60.0


@click.command("cancel")
@jobs_argument
@click.option("--reason", help="Reason to record with the cancellation.")
@click.option("--wait", is_flag=True, help="Wait up to 60 s for the code to stop (then exit with 124).")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def command(words: tuple[str, ...], reason: str | None, wait: bool, yes: bool) -> int:
    """Cancel jobs. Takes effect immediately; running code is signalled and stops at its next cancellation point.

    A filter asks for confirmation first, with the number of jobs.
    """
    context = current()
    jobs, by_filter = select_jobs(context, words)
    active = [job for job in jobs if not job.is_terminal]
    if by_filter:
        jobs = active
        if not confirm_change(context, "cancel", jobs, "pending or running", yes=yes):
            return exit_codes.OK
    code = exit_codes.OK
    cancelled: list[Job] = []
    for job in jobs:
        try:
            cancelled.append(context.manager.cancel_job(job.job_id, reason, by=_user()))
        except (IllegalTransitionError, JobNotFoundError) as refused:
            if by_filter:
                continue  # it ended after it was listed
            sys.stderr.write(f"milepost: {job.job_id}: {refused}\n")
            code = exit_codes.FAILED
    if wait:
        late = _wait_for_receipts(context, cancelled)
        code = exit_codes.TIMED_OUT if late else code
    for job in cancelled:
        _print(context, context.manager.get_job(job.job_id) or job)
    return code


def _user() -> str:
    from milepost.cli.local_run import user_name

    return user_name()


def _wait_for_receipts(context: CommandContext, jobs: list[Job]) -> bool:
    """Wait for the receipts. Return True if one is still missing after the time limit."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    waiting = [job.job_id for job in jobs]
    while waiting:
        job = context.manager.get_job(waiting[-1])
        if job is None or job.receipt is None or job.receipt.confirmed is not None:
            waiting.pop()
        elif time.monotonic() > deadline:
            late = formatting.plural(len(waiting), "job")
            sys.stderr.write(f"milepost: {late} did not confirm that they stopped within {MAX_WAIT_SECONDS:g} s\n")
            return True
        else:
            time.sleep(POLL_INTERVAL)
    return False


def _print(context: CommandContext, job: Job) -> None:
    if context.json:
        echo_json(job.to_dict())
        return
    from rich.text import Text

    line = Text(glyph(context.console, job.status.value) + " ", STYLES[job.status.value])
    context.console.print(line.append(f"{job.job_id}  ").append(ended_text(job)))
