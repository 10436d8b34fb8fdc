"""`milepost stats [FILTER...]`: types with their counts, success and durations."""

from __future__ import annotations

import json

import click

from milepost.cli import exits, wording
from milepost.cli.counting import percentile, type_stats
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.naming import all_jobs, filter_text
from milepost.cli.session import current, session_options

HEADING = (
    "TYPE",
    "JOBS",
    "PENDING",
    "RUNNING",
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "SUCCESS",
    "RAN P50",
    "P95",
    "WAITED P50",
    "P95 ",
)


@click.command("stats")
@click.argument("terms", metavar="[FILTER...]", nargs=-1)
@session_options
def command(terms: tuple[str, ...]) -> int:
    """Count jobs by type and status, with how long they ran and waited.

    A filter narrows it: milepost stats created:1d
    """
    session = current()
    stats = type_stats(all_jobs(session, filter_text(terms)))
    if session.json:
        for known in stats:
            say(json.dumps(known.to_dict()))
        return exits.OK
    if not stats:
        session.console.print("No jobs" + (" match." if terms else " yet."))
        return exits.OK

    def time_of(values: list[float], share: float) -> str:
        value = percentile(values, share)
        return wording.duration(value) if value is not None else "-"

    print_rows(
        session,
        HEADING,
        [
            (
                known.job_type, wording.number(known.total), *(
                    wording.number(count)
                    for count in (known.pending, known.running, known.completed, known.failed, known.cancelled)
                ),
                wording.percent(known.success) if known.success is not None else "-",
                time_of(known.ran, 0.5), time_of(known.ran, 0.95), time_of(known.waited, 0.5), time_of(known.waited, 0.95),
            )
            for known in stats
        ],
        right=HEADING[1:],
        spare=("P95 ", "WAITED P50", "CANCELLED", "P95", "PENDING", "RUNNING", "RAN P50", "COMPLETED"),
    )  # fmt: skip
    return exits.OK
