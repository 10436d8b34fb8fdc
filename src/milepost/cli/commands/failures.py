"""`milepost failures [FILTER...]`: failed jobs grouped by what went wrong."""

from __future__ import annotations

import json

import click

from milepost.cli import exits, wording
from milepost.cli.counting import failure_groups
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.naming import all_jobs, filter_text
from milepost.cli.session import current, session_options


@click.command("failures")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def command(terms: tuple[str, ...]) -> int:
    """Group failed jobs by exception type and by the last line of your own code.

    The filter of a group works in other commands: milepost retry status:failed failure:ValueError@embed.py:41
    """
    session = current()
    groups = failure_groups(all_jobs(session, filter_text(("status:failed", *terms))))
    if session.json:
        for group in groups:
            say(json.dumps(group.to_dict(), ensure_ascii=False))
        return exits.OK
    if not groups:
        session.console.print("No failed jobs" + (" match." if terms else "."))
        return exits.OK
    print_rows(
        session,
        ("COUNT", "FAILURE", "TYPES", "FIRST", "LAST", "NEWEST MESSAGE"),
        [
            (
                wording.number(group.count), group.group, ",".join(group.types),
                wording.clock(group.first, utc=session.utc), wording.clock(group.last, utc=session.utc), group.message,
            )
            for group in groups
        ],
        right=("COUNT",),
        spare=("FIRST", "TYPES", "LAST"),
    )  # fmt: skip
    if session.console.is_terminal:
        session.console.print(f"\nSee the largest: milepost ls {groups[0].words}")
    return exits.OK
