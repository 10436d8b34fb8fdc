"""`milepost failures [FILTER...]`: group failed jobs by cause."""

from __future__ import annotations

import shlex

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import all_jobs, filter_text
from milepost.cli.rendering.tables import print_records


@click.command("failures")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def command(terms: tuple[str, ...]) -> int:
    """Group failed jobs by exception type and the last line of your own code.

    Use the filter of a group in other commands: milepost retry status:failed failure:ValueError@embed.py:41
    """
    from milepost.query.overview import failure_groups

    context = current()
    groups = failure_groups(all_jobs(context, filter_text(("status:failed", *terms))))
    print_records(
        context,
        (group.to_dict() for group in groups),
        ("COUNT", "FAILURE", "TYPES", "FIRST", "LAST", "NEWEST MESSAGE"),
        [
            (
                formatting.number(group.count), group.group, ",".join(sorted(group.job_types)),
                formatting.clock(group.first_at, utc=context.utc), formatting.clock(group.last_at, utc=context.utc), group.message or "",
            )
            for group in groups
        ],
        nothing="No failed jobs match." if terms else "No failed jobs.",
        right=("COUNT",),
        optional=("FIRST", "TYPES", "LAST"),
    )  # fmt: skip
    if groups and not context.json and context.console.is_terminal:
        words = shlex.join(groups[0].q.split(" ", 1))
        context.console.print(f"\nList the largest group: milepost ls {words}")
    return exit_codes.OK
