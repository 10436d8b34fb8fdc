"""`milepost submit TYPE [ARG...]`: submit a job to the workers."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

import click

from milepost.cli import admin, exit_codes
from milepost.cli.arguments import JobCommand, parse_arguments
from milepost.cli.commands.watch import follow
from milepost.cli.context import current, session_options
from milepost.cli.job_options import field_options, given_options
from milepost.cli.job_types import TypeName, absolute_paths, find_type, jobs_for_submit
from milepost.cli.rendering.live import echo, echo_json
from milepost.cli.rendering.terminal import STYLES, glyph
from milepost.core.errors import UnknownJobTypeError
from milepost.core.record import OPTIONS

WORKER_START_SECONDS = 5.0
"""How long a submit waits for a worker to publish an unknown type: a script may have started the worker just before."""


@click.command("submit", cls=JobCommand, epilog=exit_codes.EXIT_CODES_HELP)
@click.argument("job_type", metavar="TYPE", type=TypeName())
@click.argument("words", metavar="[ARG...] [NAME=VALUE...]", nargs=-1)
@field_options(OPTIONS)
@click.option(
    "--on-duplicate",
    type=click.Choice(["return", "refuse", "supersede"]),
    help="What to do if another active job has this key.",
)
@click.option("--job-id", "job_id", metavar="ID", help="Id of the new job (default: generated).")
@click.option("--app", metavar="MODULE:APP", help="Submit with the handlers, settings and task queue of this Jobs.")
@click.option(
    "-w", "--watch", "wait", is_flag=True, help="Follow the job until it ends; the exit code reflects its outcome."
)
@session_options
def submit(job_type: str, words: tuple[str, ...], app: str | None, wait: bool, **given: Any) -> int:
    """Submit a job of TYPE to the workers and print its id.

    ARGs set the parameters in order, NAME=VALUE sets one by name. The parameters are those that the workers published.
    """
    context = current()
    schema = find_type(context, job_type, app).schema if app is not None else _published(job_type)
    params = absolute_paths(job_type, schema, parse_arguments(job_type, schema, words, verb="submit"))
    options = {name: given[name] for name in ("on_duplicate", "job_id")}
    options = {name: value for name, value in options.items() if value is not None} | given_options(given)
    if app is not None and not context.is_server:
        job = jobs_for_submit(context, app, job_type).submit(job_type, params, **options)
    else:
        job = context.jobs.submit(job_type, params, **options)
    if wait:
        return follow(context, [job], None)
    if context.json:
        echo_json(job.to_dict())
    elif not context.console.is_terminal:
        echo(job.job_id)
    else:
        from rich.text import Text

        line = Text(glyph(context.console, job.status.value) + " ", STYLES[job.status.value])
        context.console.print(line.append(f"{job.job_id}  {job.status.value}"))
    return exit_codes.OK


def _published(job_type: str) -> dict[str, Any]:
    """Return the schema of a published type. If no type resembles it, wait for a worker that is still starting."""
    until: float | None = None
    while True:
        try:
            return admin.get_job_type(current(), job_type).schema
        except UnknownJobTypeError as unknown:
            from difflib import get_close_matches

            if (until is not None and monotonic() > until) or get_close_matches(job_type, unknown.known):
                hint = "if its workers publish no types (e.g. a plain `rq worker`), pass --app MODULE:APP"
                raise click.UsageError(f"{unknown}; {hint}") from None
        if until is None:
            until = monotonic() + WORKER_START_SECONDS
            click.echo(f"Waiting up to {WORKER_START_SECONDS:g} s for a worker that has {job_type!r} ...", err=True)
        sleep(0.25)
