"""`milepost purge`: delete jobs that ended long ago, now rather than at the next sweep."""

from __future__ import annotations

import json

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.admin import purge
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo
from milepost.core.serialization import seconds


@click.command("purge")
@click.option(
    "--older-than", metavar="TIME", help="Delete jobs that ended more than TIME ago (e.g. 12h, 7d; default: JOB_TTL)."
)
@session_options
def command(older_than: str | None) -> int:
    """Delete ended jobs past their retention time."""
    context = current()
    gone = purge(context, None if older_than is None else seconds(older_than, "--older-than"))
    echo(json.dumps({"purged": gone}) if context.json else f"Deleted {formatting.plural(gone, 'job')}.")
    return exit_codes.OK
