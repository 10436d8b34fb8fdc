"""`milepost schedule`: list, add, pause, resume, fire and remove schedules."""

from __future__ import annotations

import json
from typing import Any

import click

from milepost.cli import admin, exit_codes, formatting
from milepost.cli.arguments import parse_arguments
from milepost.cli.context import current, session_options
from milepost.cli.job_options import field_options, given_options
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.tables import print_records
from milepost.core.schedule import CATCH_UP, OVERLAP, SCHEDULE_OPTIONS, Schedule
from milepost.core.serialization import seconds


@click.group("schedule", invoke_without_command=True)
@session_options
@click.pass_context
def schedule(ctx: click.Context) -> int | None:
    """List, add, pause, resume, fire and remove schedules."""
    return ctx.invoke(ls) if ctx.invoked_subcommand is None else None


@schedule.command("ls")
@session_options
def ls() -> int:
    """List schedules with their next tick."""
    context = current()
    known = context.jobs.list_schedules()

    def clock(moment: Any) -> str:
        return formatting.clock(moment, utc=context.utc) if moment is not None else "-"

    print_records(
        context,
        (one.to_dict() for one in known),
        ("NAME", "TYPE", "WHEN", "NEXT", "LAST", "FIRED", "STATE"),
        [
            (one.name, one.job_type, _when(one), "-" if one.paused else clock(one.next_at), clock(one.last_at), str(one.fired), _state(one))
            for one in known
        ],
        nothing="No schedules. Declare one with jobs.schedule(...), or: milepost schedule add NAME TYPE --cron '0 3 * * *'",
        optional=("LAST", "FIRED"),
    )  # fmt: skip
    return exit_codes.OK


@schedule.command("add")
@click.argument("name")
@click.argument("job_type", metavar="TYPE")
@click.argument("words", metavar="[ARG...] [NAME=VALUE...]", nargs=-1)
@click.option("--cron", metavar="TEXT", help="Five fields, e.g. '0 3 * * *' for 03:00 every day.")
@click.option("--every", metavar="TIME", help="An interval instead (e.g. 15m, 6h).")
@click.option("--tz", default="UTC", show_default=True, metavar="ZONE", help="Time zone of --cron.")
@click.option("--catch-up", type=click.Choice(CATCH_UP), default="last", help="Which missed ticks make jobs.")
@click.option(
    "--overlap", type=click.Choice(OVERLAP), default="skip", help="What to do while the previous job is open."
)
@field_options(SCHEDULE_OPTIONS)
@session_options
def add(
    name: str,
    job_type: str,
    words: tuple[str, ...],
    cron: str | None,
    every: str | None,
    tz: str,
    catch_up: Any,
    overlap: Any,
    **given: Any,
) -> int:
    """Make a schedule of a published TYPE, or change the one of this name.

    ARGs set the parameters in order, NAME=VALUE sets one by name. Options of `milepost submit` hold for each of its jobs.
    """
    context = current()
    schema = admin.get_job_type(context, job_type).schema
    params = parse_arguments(job_type, schema, words, verb="schedule add NAME")
    interval = None if every is None else seconds(every, "--every")
    made = context.jobs.add_schedule(
        name, job_type, cron=cron, every=interval, tz=tz, catch_up=catch_up, overlap=overlap, params=params,
        options=given_options(given),
    )  # fmt: skip
    return _print(made)


@schedule.command("pause")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@session_options
def pause(names: tuple[str, ...]) -> int:
    """Pause schedules: their ticks make no jobs."""
    for name in names:
        _print(current().jobs.pause_schedule(name))
    return exit_codes.OK


@schedule.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@session_options
def resume(names: tuple[str, ...]) -> int:
    """Resume paused schedules. Ticks during the pause make no jobs."""
    for name in names:
        _print(current().jobs.resume_schedule(name))
    return exit_codes.OK


@schedule.command("fire")
@click.argument("name")
@session_options
def fire(name: str) -> int:
    """Make a job of a schedule now and print its id. Its ticks stay as they are."""
    context = current()
    job = context.jobs.fire_schedule(name)
    if context.json:
        echo_json(job.to_dict())
    else:
        echo(job.job_id)
    return exit_codes.OK


@schedule.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@session_options
def rm(names: tuple[str, ...]) -> int:
    """Remove schedules; their jobs stay.

    One that code declares comes back within a minute while its worker runs. Pause it instead, or remove its declaration.
    """
    context = current()
    for name in names:
        context.jobs.remove_schedule(name)
        echo(json.dumps({"name": name, "removed": True}) if context.json else f"Removed {name}.")
    return exit_codes.OK


def _print(made: Schedule) -> int:
    context = current()
    if context.json:
        echo_json(made.to_dict())
        return exit_codes.OK
    ticks = ", ".join(formatting.clock(tick, utc=context.utc) for tick in made.upcoming)
    echo(f"{made.name}: {_state(made)}" if made.paused else f"{made.name}: {_when(made)}; next {ticks}")
    return exit_codes.OK


def _when(one: Schedule) -> str:
    if one.every is not None:
        return f"every {formatting.short_duration(one.every)}"
    return f"{one.cron} {one.tz}"


def _state(one: Schedule) -> str:
    if one.paused is not None:
        return {"user": "paused", "key_ended": "paused: key ended"}.get(one.paused, f"paused: {one.paused}")
    return "overridden" if one.overridden else "active"
