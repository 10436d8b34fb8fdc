"""`milepost rm ID...`: delete jobs with all that belongs to them."""

from __future__ import annotations

import json

import click

from milepost.cli import exits, wording
from milepost.cli.drawing.views import say
from milepost.cli.naming import chosen_jobs, jobs_argument
from milepost.cli.session import current, session_options
from milepost.cli.sure import agreed, counted


@click.command("rm")
@jobs_argument
@click.option("-n", "--dry-run", is_flag=True, help="Only say how many jobs that is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@session_options
def command(words: tuple[str, ...], dry_run: bool, yes: bool) -> int:
    """Delete jobs; running ones are cancelled first. It says how many that is, and asks."""
    session = current()
    jobs, _ = chosen_jobs(session, words)
    if dry_run:
        say(json.dumps({"matched": len(jobs)}) if session.json else f"This would delete {counted(jobs)}.")
        return exits.OK
    if not agreed(session, "delete", jobs, "", yes=yes):
        return exits.OK
    for job in jobs:
        session.manager.delete_job(job.job_id)
        if session.json:
            say(json.dumps({"job_id": job.job_id, "deleted": True}))
    if not session.json:
        say(f"Deleted {wording.plural(len(jobs), 'job')}.")
    return exits.OK
