"""`milepost show ID...`: show the details of jobs."""

from __future__ import annotations

import click

from milepost.cli import exit_codes
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import JobId, resolve_job, shortest_id
from milepost.cli.rendering.job_detail import print_job
from milepost.cli.rendering.live import echo_json


@click.command("show")
@click.argument("words", metavar="[ID|@last]...", type=JobId(), nargs=-1)
@session_options
def command(words: tuple[str, ...]) -> int:
    """Show the details of a job (default: the newest job)."""
    context = current()
    for at, word in enumerate(words or ("@last",)):
        job = context.with_start_forecast([resolve_job(context, word)])[0]
        if context.json:
            echo_json(job.to_dict())
            continue
        if at:
            context.console.print()
        print_job(context.console, job, utc=context.utc, short=shortest_id(context, job))
    return exit_codes.OK
