"""`milepost rm ID...`: delete jobs with their logs, checkpoints and events."""

from __future__ import annotations

import json

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.confirm import confirm_change, count_by_status
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import jobs_argument, select_jobs
from milepost.cli.rendering.live import echo, echo_json


@click.command("rm")
@jobs_argument
@click.option("-n", "--dry-run", is_flag=True, help="Print the number of jobs and delete nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@session_options
def command(words: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """Delete jobs after a confirmation; running jobs are cancelled first."""
    context = current()
    jobs, _ = select_jobs(context, words)
    if dry_run:
        echo(json.dumps({"matched": len(jobs)}) if context.json else f"This would delete {count_by_status(jobs)}.")
        return exit_codes.OK
    if not confirm_change(context, "delete", jobs, "", yes=yes):
        return exit_codes.OK
    for job in jobs:
        context.manager.delete_job(job.job_id)
        if context.json:
            echo_json({"job_id": job.job_id, "deleted": True})
    if not context.json:
        echo(f"Deleted {formatting.plural(len(jobs), 'job')}.")
    return exit_codes.OK
