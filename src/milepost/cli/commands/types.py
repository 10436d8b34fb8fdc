"""`milepost types`, `workers`: list and limit the published job types, and list the workers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from milepost.cli import admin, exit_codes, formatting
from milepost.cli.arguments import named_parameters
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.rendering.job_detail import is_attempt_limit, shown_worker
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records

if TYPE_CHECKING:
    from milepost.worker.registry import JobType


@click.group("types", invoke_without_command=True)
@session_options
@click.pass_context
def types(ctx: click.Context) -> int | None:
    """List, pause, resume and limit the job types that workers have published."""
    if ctx.invoked_subcommand is not None:
        return None
    context = current()
    known = context.jobs.job_types()
    print_records(
        context,
        (one.to_dict() for one in known),
        ("TYPE", "STATE", "AT ONCE", "ATTEMPTS", "TIMEOUT", "PARAMETERS"),
        [
            (
                one.name,
                "paused" if one.paused else "open",
                "any" if (one.limit or one.concurrency) is None else str(one.limit or one.concurrency),
                str(one.max_attempts) if is_attempt_limit(one.max_attempts) else "any",
                formatting.duration(one.timeout) if one.timeout is not None else "-",
                named_parameters(one.schema),
            )
            for one in known
        ],
        nothing="No job types published yet. Start a worker: milepost worker MODULE:APP",
        optional=("ATTEMPTS", "TIMEOUT", "AT ONCE"),
    )
    return exit_codes.OK


@types.command("pause")
@click.argument("names", metavar="TYPE...", nargs=-1, required=True)
@session_options
def pause(names: tuple[str, ...]) -> int:
    """Pause job types on all workers; running jobs continue."""
    return _set(current(), names, True)


@types.command("resume")
@click.argument("names", metavar="TYPE...", nargs=-1, required=True)
@session_options
def resume(names: tuple[str, ...]) -> int:
    """Resume paused job types."""
    return _set(current(), names, False)


@types.command("limit")
@click.argument("name", metavar="TYPE")
@click.argument("most", metavar="N|none")
@session_options
def limit(name: str, most: str) -> int:
    """Limit the concurrent jobs of a type; `none` removes the limit.

    The limit N counts the jobs of all workers."""
    context = current()
    if most != "none" and not (most.isdecimal() and int(most) >= 1):
        raise click.UsageError(f"limit must be a whole number of at least 1, or `none`, not {most!r}")
    _print(context, admin.set_limit(context, name, limit=None if most == "none" else int(most)))
    return exit_codes.OK


def _set(context: CommandContext, names: tuple[str, ...], paused: bool) -> int:
    for name in names:
        _print(context, admin.set_limit(context, name, paused=paused))
    return exit_codes.OK


def _print(context: CommandContext, known: JobType) -> None:
    if context.json:
        echo_json(known.to_dict())
        return
    most = f"; limited to {known.limit} at once" if known.limit is not None else ""
    echo(f"{known.name} is {'paused; no new jobs of this type will start' if known.paused else 'open'}{most}")


SILENT_AFTER = 15.0
"""Seconds without a heartbeat after which a worker is shown as silent."""


@click.command("workers")
@session_options
def workers() -> int:
    """List workers with the number of jobs they run and their last heartbeat."""
    context = current()
    known = context.jobs.workers()
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
