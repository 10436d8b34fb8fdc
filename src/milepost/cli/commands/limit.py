"""`milepost limit`: list, set and remove limits on the jobs of all workers that run at once."""

from __future__ import annotations

import click

from milepost.cli import exit_codes
from milepost.cli.context import current, session_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records
from milepost.core.limits import LimitState


@click.group("limit", invoke_without_command=True)
@session_options
@click.pass_context
def limit(ctx: click.Context) -> int | None:
    """List, set and remove limits on the jobs that run at once."""
    return _list() if ctx.invoked_subcommand is None else None


@limit.command("ls")
@session_options
def ls() -> int:
    """List limits, and below each the partitions with running jobs."""
    return _list()


def _list() -> int:
    context = current()
    known = context.jobs.limits()
    print_records(
        context,
        (one.to_dict() for one in known),
        ("KEY", "PARTITION", "RUNNING", "LIMIT"),
        [row for one in known for row in _rows(one)],
        nothing="No limits. Set one: milepost limit set KEY --running 8 --per-partition 2",
    )
    return exit_codes.OK


def _rows(one: LimitState) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [(one.key, "", str(one.leases), _shown(one.running))]
    rows += [("", name, str(count), _shown(one.per_partition)) for name, count in one.partitions.items()]
    return rows


def _shown(most: int | None) -> str:
    return "any" if most is None else str(most)


@limit.command("set")
@click.argument("key")
@click.option("--running", type=int, metavar="N", help="The most jobs of KEY that run at once.")
@click.option("--per-partition", type=int, metavar="N", help="The most jobs of each partition that run at once.")
@session_options
def set_limit(key: str, running: int | None, per_partition: int | None) -> int:
    """Limit the jobs with the limit key KEY, by default their type, over all workers.

    Running jobs continue. A limit that is not given is removed."""
    if running is None and per_partition is None:
        raise click.UsageError("give --running, --per-partition or both; `milepost limit rm KEY` removes a limit")
    context = current()
    context.jobs.limit(key, running=running, per_partition=per_partition)
    (found,) = (one for one in context.jobs.limits() if one.key == key)
    if context.json:
        echo_json(found.to_dict())
    else:
        echo(f"{key} is limited to {_shown(running)} at once, {_shown(per_partition)} of each partition")
    return exit_codes.OK


@limit.command("rm")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@session_options
def rm(keys: tuple[str, ...]) -> int:
    """Remove limits."""
    for key in keys:
        current().jobs.remove_limit(key)
    return exit_codes.OK
