"""`milepost usage`: what jobs have spent."""

from __future__ import annotations

from collections.abc import Mapping

import click

from milepost.cli import exit_codes
from milepost.cli.arguments import labels_of
from milepost.cli.context import current, session_options
from milepost.cli.job_selection import JobId, resolve_job
from milepost.cli.rendering.tables import print_records
from milepost.core.usage import amount_text


@click.command("usage")
@click.argument("word", metavar="[ID|@last]", type=JobId(), required=False)
@click.option("--by", default="type", show_default=True, metavar="type|day|label:NAME", help="Group by this.")
@click.option("--since", metavar="DAY", help="Begin with DAY (e.g. 2026-11-01; default: 30 days ago), in UTC.")
@click.option("--until", metavar="DAY", help="End with DAY (default: today).")
@click.option("--type", "job_type", metavar="TYPE", help="Count only jobs of TYPE.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Count only jobs with a label; may be repeated.")  # fmt: skip
@session_options
def usage(
    word: str | None, by: str, since: str | None, until: str | None, job_type: str | None, labels: tuple[str, ...]
) -> int:
    """Show what jobs have spent with `run.add_usage`, also those that were deleted; or one job and its descendants."""
    context = current()
    if word is not None:
        job_id = resolve_job(context, word).job_id
        found = context.manager.job_usage(job_id).to_dict()
        rows: list[tuple[str, Mapping[str, float]]] = [
            (name, amounts) for name, amounts in found.items() if isinstance(amounts, dict) and amounts
        ]
        records = [{"job_id": job_id, **found}]
        heading, nothing = "OF", f"Job {job_id} has spent nothing."
    else:
        report = context.manager.usage(by=by, since=since, until=until, job_type=job_type, labels=labels_of(labels))
        rows = [*report.groups.items(), *([("total", report.total)] if len(report.groups) > 1 else [])]
        records = [report.to_dict()]
        heading = by.removeprefix("label:").upper()
        nothing = f"Nothing was spent from {report.since} to {report.until}."
    names = sorted({name for _, amounts in rows for name in amounts})
    print_records(
        context,
        records,
        (heading, *map(str.upper, names)),
        [
            (name or "-", *(amount_text(amounts[one]) if one in amounts else "" for one in names))
            for name, amounts in rows
        ],
        nothing=nothing,
        right=tuple(map(str.upper, names)),
    )
    return exit_codes.OK
