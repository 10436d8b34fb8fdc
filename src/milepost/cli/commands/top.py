"""`milepost top`: a full-screen live view."""

from __future__ import annotations

import sys

import click

from milepost.cli import exit_codes
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import filter_text
from milepost.core.errors import MissingExtraError


@click.command("top")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def top(terms: tuple[str, ...]) -> int:
    """Show a full-screen live view of jobs. Keys: arrows select, / filter, c cancel, r retry, space pause, q quit."""
    context = current()
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise click.UsageError("top requires a terminal; in a pipe use: milepost ls -w")
    try:
        from milepost.cli.tui import make_screen
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "textual":
            raise
        raise MissingExtraError("tui", "milepost top") from missing
    make_screen(context, filter_text(terms)).run()
    return exit_codes.OK
