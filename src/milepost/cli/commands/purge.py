"""`milepost purge`: remove jobs that ended long ago, now rather than at the next sweep."""

from __future__ import annotations

import json

import click

from milepost.cli import exits, wording
from milepost.cli.administration import purge
from milepost.cli.drawing.views import say
from milepost.cli.session import current, session_options
from milepost.core.encoding import seconds


@click.command("purge")
@click.option("--older-than", metavar="TIME", help="Jobs that ended longer ago than this (12h, 7d; default: JOB_TTL).")
@session_options
def command(older_than: str | None) -> int:
    """Remove jobs whose time to live after their end is over, with all that belongs to them."""
    session = current()
    gone = purge(session, None if older_than is None else seconds(older_than, "--older-than"))
    say(json.dumps({"purged": gone}) if session.json else f"Removed {wording.plural(gone, 'job')}.")
    return exits.OK
