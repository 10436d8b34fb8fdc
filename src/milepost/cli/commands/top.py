"""`milepost top`: the whole screen, live."""

from __future__ import annotations

import sys

import click

from milepost.cli import exits
from milepost.cli.naming import filter_text
from milepost.cli.session import current, session_options
from milepost.core.errors import MissingExtra


@click.command("top")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def command(terms: tuple[str, ...]) -> int:
    """Full-screen live view of jobs: arrows move, Enter shows, / filters, c cancels, r retries, q ends."""
    session = current()
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise click.UsageError("top needs a terminal; in a pipe use: milepost ls -w")
    try:
        from milepost.cli.screen import make_screen
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "textual":
            raise
        raise MissingExtra("tui", "milepost top") from missing
    make_screen(session, filter_text(terms)).run()
    return exits.OK
