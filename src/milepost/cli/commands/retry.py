"""`milepost retry ID...`: return failed or cancelled jobs to pending."""

from __future__ import annotations

import sys

import click

from milepost.cli import exit_codes
from milepost.cli.confirm import confirm_change
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import jobs_argument, select_jobs
from milepost.cli.rendering.live import echo_json
from milepost.cli.rendering.terminal import STYLES, glyph
from milepost.core.errors import RejectedError
from milepost.core.job import JobStatus

RETRYABLE_STATUSES = (JobStatus.FAILED, JobStatus.CANCELLED)


@click.command("retry")
@jobs_argument
@click.option(
    "--only-failed", is_flag=True, help="Submit a new job for the failed items only (also works on completed jobs)."
)
@click.option("--from-start", is_flag=True, help="Discard the checkpoint and state; loops start at their first item.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def command(words: tuple[str, ...], only_failed: bool, from_start: bool, yes: bool) -> int:
    """Return failed or cancelled jobs to pending, with a new attempt budget and their last checkpoint."""
    if only_failed and from_start:
        raise click.UsageError(
            "--only-failed submits a new job, which starts at its first item; leave --from-start out"
        )
    context = current()
    jobs, by_filter = select_jobs(context, words)
    if by_filter:
        jobs = [
            job
            for job in jobs
            if job.run_by == "worker" and (job.is_terminal if only_failed else job.status in RETRYABLE_STATUSES)
        ]
        if only_failed:
            jobs = [job for job in jobs if job.item_counts is not None and job.item_counts.failed_keys]
        if not confirm_change(
            context, "retry", jobs, "failed items in any" if only_failed else "failed or cancelled worker", yes=yes
        ):
            return exit_codes.OK
    code = exit_codes.OK
    for job in jobs:
        try:
            again = context.manager.retry_job(job.job_id, only_failed=only_failed, from_start=from_start)
        except RejectedError as refused:
            which = "" if job.job_id in str(refused) else f"{job.job_id}: "
            sys.stderr.write(f"milepost: {which}{refused}\n")
            code = exit_codes.FAILED
            continue
        if context.json:
            echo_json(again.to_dict())
            continue
        from rich.text import Text

        line = Text(glyph(context.console, again.status.value) + " ", STYLES[again.status.value])
        made = f"  (the failed items of {job.job_id})" if only_failed else ""
        context.console.print(line.append(f"{again.job_id}  {again.status.value}{made}"))
    return code
