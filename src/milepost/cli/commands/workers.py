"""`milepost workers`: who runs jobs, and which."""

from __future__ import annotations

import json
import time

import click

from milepost.cli import administration, exits, wording
from milepost.cli.drawing.details import shown_worker
from milepost.cli.drawing.grids import print_rows
from milepost.cli.drawing.views import say
from milepost.cli.session import current, session_options

SILENT = 15.0
"""Seconds of silence after which a worker is marked."""


@click.command("workers")
@session_options
def command() -> int:
    """List workers, what they run, and when they were last heard of."""
    session = current()
    known = administration.workers(session)
    if session.json:
        for one in known:
            say(json.dumps(one.to_dict(), ensure_ascii=False))
        return exits.OK
    if not known:
        session.console.print("No workers. Start one: milepost worker MODULE:APP")
        return exits.OK
    now = time.time()
    print_rows(
        session,
        ("WORKER", "STATE", "RUNS", "SINCE", "HEARD", "TYPES"),
        [
            (
                shown_worker(one.name),
                "draining"
                if one.draining
                else "silent"
                if now - one.seen > SILENT
                else "working"
                if one.running
                else "idle",
                f"{len(one.running)}/{one.concurrency}",
                wording.briefly(now - one.since),
                f"{wording.briefly(now - one.seen)} ago",
                ", ".join(one.types),
            )
            for one in known
        ],
        spare=("SINCE", "STATE"),
    )
    return exits.OK
