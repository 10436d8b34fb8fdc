"""`milepost workers`: list the workers."""

from __future__ import annotations

import time

import click

from milepost.cli import admin, exit_codes, formatting
from milepost.cli.context import current, session_options
from milepost.cli.rendering.job_detail import shown_worker
from milepost.cli.rendering.tables import print_records

SILENT_AFTER = 15.0
"""Seconds without a heartbeat after which a worker is shown as silent."""


@click.command("workers")
@session_options
def command() -> int:
    """List workers with the number of jobs they run and their last heartbeat."""
    context = current()
    known = admin.workers(context)
    now = time.time()
    print_records(
        context,
        (one.to_dict() for one in known),
        ("WORKER", "STATE", "JOBS", "UPTIME", "HEARTBEAT", "TYPES"),
        [
            (
                shown_worker(one.name),
                "draining"
                if one.draining
                else "silent"
                if now - one.seen > SILENT_AFTER
                else "working"
                if one.running
                else "idle",
                f"{len(one.running)}/{one.concurrency}",
                formatting.short_duration(now - one.since),
                f"{formatting.short_duration(now - one.seen)} ago",
                ", ".join(one.types),
            )
            for one in known
        ],
        nothing="No workers. Start one: milepost worker MODULE:APP",
        optional=("UPTIME", "STATE"),
    )
    return exit_codes.OK
