"""`milepost show ID...`: all that is known of a job."""

from __future__ import annotations

import json

import click

from milepost.cli import exits
from milepost.cli.drawing.details import print_job
from milepost.cli.drawing.views import say
from milepost.cli.naming import JobId, one_job, typed_id
from milepost.cli.session import current, session_options


@click.command("show")
@click.argument("words", metavar="[ID|@last]...", type=JobId(), nargs=-1)
@session_options
def command(words: tuple[str, ...]) -> int:
    """Show all that is known of a job; of the newest one when no ID is given."""
    session = current()
    for at, word in enumerate(words or ("@last",)):
        job = session.with_starts([one_job(session, word)])[0]
        if session.json:
            say(json.dumps(job.to_dict(), ensure_ascii=False))
            continue
        if at:
            session.console.print()
        print_job(session.console, job, utc=session.utc, short=typed_id(session, job))
    return exits.OK
