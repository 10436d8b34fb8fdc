"""`milepost retry ID...`: failed or cancelled jobs go back to pending."""

from __future__ import annotations

import json
import sys

import click

from milepost.cli import exits
from milepost.cli.drawing.console import STYLES, glyph
from milepost.cli.drawing.views import say
from milepost.cli.naming import chosen_jobs, jobs_argument
from milepost.cli.session import current, session_options
from milepost.cli.sure import agreed
from milepost.core.errors import Refused
from milepost.core.job import JobStatus

RETRIED = (JobStatus.FAILED, JobStatus.CANCELLED)


@click.command("retry")
@jobs_argument
@click.option("--only-failed", is_flag=True, help="A new job with only the items that failed; after completed too.")
@click.option("--yes", is_flag=True, help="Do not ask, though a filter chose the jobs.")
@session_options
def command(words: tuple[str, ...], only_failed: bool, yes: bool) -> int:
    """Send failed or cancelled jobs back to pending, with one fresh budget and their last checkpoint."""
    session = current()
    jobs, by_filter = chosen_jobs(session, words)
    if by_filter:
        jobs = [
            job
            for job in jobs
            if job.driver == "worker" and (job.is_terminal if only_failed else job.status in RETRIED)
        ]
        if only_failed:
            jobs = [job for job in jobs if job.item_counts is not None and job.item_counts.failed_keys]
        if not agreed(session, "retry", jobs, "such", yes=yes):
            return exits.OK
    code = exits.OK
    for job in jobs:
        try:
            again = session.manager.retry_job(job.job_id, only_failed=only_failed)
        except Refused as refused:
            sys.stderr.write(f"milepost: {job.job_id}: {refused}\n")
            code = exits.FAILED
            continue
        if session.json:
            say(json.dumps(again.to_dict(), ensure_ascii=False))
            continue
        from rich.text import Text

        line = Text(glyph(session.console, again.status.value) + " ", STYLES[again.status.value])
        made = f"  (the failed items of {job.job_id})" if only_failed else ""
        session.console.print(line.append(f"{again.job_id}  {again.status.value}{made}"))
    return code
