"""`milepost limit`: list, set and remove limits on the jobs of all workers, and close and open gates."""

from __future__ import annotations

from datetime import datetime

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.arguments import WholeNumber
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records
from milepost.cli.rendering.terminal import clean
from milepost.core.limits import MAX_LIMIT, LimitState
from milepost.core.serialization import seconds


@click.group("limit", invoke_without_command=True)
@session_options
@click.pass_context
def limit(ctx: click.Context) -> int | None:
    """List, set and remove limits on how many jobs run and how often they start; close and open gates."""
    return ctx.invoke(ls) if ctx.invoked_subcommand is None else None


@limit.command("ls")
@session_options
def ls() -> int:
    """List limits, and below each the partitions with running jobs."""
    context = current()
    known = context.jobs.limits()
    print_records(
        context,
        (one.to_dict() for one in known),
        ("KEY", "PARTITION", "RUNNING", "LIMIT", "CLAIMABLE", "RATE", "CLOSED UNTIL"),
        [row for one in known for row in _rows(one, utc=context.utc)],
        nothing="No limits. Set one: milepost limit set KEY --running 8 --per-partition 2",
    )
    return exit_codes.OK


def _rows(one: LimitState, *, utc: bool) -> list[tuple[str, ...]]:
    until = "" if one.gate_until is None else formatting.clock(datetime.fromisoformat(one.gate_until), utc=utc)
    use = (str(one.leases), _shown(one.running), str(one.claimable))
    rows: list[tuple[str, ...]] = [(one.key, "", *use, one.rate or "any", until)]
    rows += [("", name, str(count), _shown(one.per_partition), "", "", "") for name, count in one.partitions.items()]
    return rows


def _shown(most: int | None) -> str:
    return "any" if most is None else str(most)


@limit.command("set")
@click.argument("key")
@click.option("--running", type=WholeNumber(0, MAX_LIMIT), metavar="N", help="The most jobs of KEY that run at once.")
@click.option(
    "--per-partition",
    type=WholeNumber(1, MAX_LIMIT),
    metavar="N",
    help="The most jobs of each partition that run at once.",
)
@click.option(
    "--rate", metavar="N/PERIOD", help="How many jobs of KEY start per period (e.g. 500/min, 10/s, 1000/15m)."
)
@session_options
def set_limit(key: str, running: int | None, per_partition: int | None, rate: str | None) -> int:
    """Limit the jobs with the limit key KEY, by default their type, over all workers.

    Running jobs continue. A limit that is not given is removed."""
    if running is None and per_partition is None and rate is None:
        raise click.UsageError("give --running, --per-partition or --rate; `milepost limit rm KEY` removes a limit")
    context = current()
    context.jobs.limit(key, running=running, per_partition=per_partition, rate=rate)
    (found,) = (one for one in context.jobs.limits() if one.key == key)
    if context.json:
        echo_json(found.to_dict())
    else:
        starts = "" if found.rate is None else f", {found.rate} starts"
        echo(f"{key} is limited to {_shown(running)} at once, {_shown(per_partition)} of each partition{starts}")
    return exit_codes.OK


@limit.command("rm")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@session_options
def rm(keys: tuple[str, ...]) -> int:
    """Remove limits."""
    jobs = current().jobs
    limited = {one.key for one in jobs.limits() if (one.running, one.per_partition, one.rate) != (None, None, None)}
    for key in keys:
        jobs.remove_limit(key)
        if key not in limited:
            click.echo(f"milepost: {clean(key)} has no limit; milepost limit ls lists the limits", err=True)
    return exit_codes.OK


@limit.command("close", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("time")
@session_options
def close(key: str, time: str) -> int:
    """Close the gate of KEY: no job with this limit key starts for TIME (e.g. 90, 30s, 2h).

    Running jobs continue. A gate that is closed for longer stays closed."""
    current().jobs.close_gate(key, seconds(time, "TIME"))
    return exit_codes.OK


@limit.command("open")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@session_options
def open_gates(keys: tuple[str, ...]) -> int:
    """Open the gates of limit keys, so that their jobs start again."""
    jobs = current().jobs
    closed = {one.key for one in jobs.limits() if one.gate_until is not None}
    for key in keys:
        jobs.open_gate(key)
        if key not in closed:
            click.echo(
                f"milepost: the gate of {clean(key)} is not closed; milepost limit ls lists closed gates", err=True
            )
    return exit_codes.OK
