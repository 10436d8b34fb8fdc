"""`milepost submit TYPE [ARG...]`: a job for the workers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from milepost.cli import administration, exits
from milepost.cli.arguments import JobCommand, fill
from milepost.cli.commands.watch import follow
from milepost.cli.drawing.console import STYLES, glyph
from milepost.cli.drawing.views import say
from milepost.cli.known_types import TypeName, absolute_paths, application, find_type
from milepost.cli.session import current, session_options
from milepost.cli.words import labels_of
from milepost.core.encoding import seconds
from milepost.core.errors import UnknownJobType


@click.command("submit", cls=JobCommand, epilog=exits.EXPLAINED)
@click.argument("job_type", metavar="TYPE", type=TypeName())
@click.argument("words", metavar="[ARG...] [NAME=VALUE...]", nargs=-1)
@click.option("--priority", type=click.IntRange(-100, 100), help="Higher ones first (default 0).")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="A label; may be repeated.")
@click.option("--delay", metavar="TIME", help="Not before so long from now (90, 2h).")
@click.option("--expires", metavar="TIME", help="Failed when it has not begun so long from now.")
@click.option("--timeout", metavar="TIME", help="The time limit of one attempt.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="How often it may be tried.")
@click.option("--key", "unique_key", help="At most one pending or running job has this key.")
@click.option(
    "--on-duplicate", type=click.Choice(["return", "refuse", "supersede"]), help="When another job has the key."
)
@click.option("--id", "job_id", help="An id of your own.")
@click.option("--app", metavar="MODULE:APP", help="Check against this code, when no worker has published the type yet.")
@click.option("-w", "--watch", "wait", is_flag=True, help="Follow it to its end; the exit code says how it ended.")
@session_options
def command(job_type: str, words: tuple[str, ...], app: str | None, wait: bool, **given: Any) -> int:
    """Hand a job of TYPE to the workers, and print its id.

    ARGs fill the parameters in order, NAME=VALUE gives one by name, as the workers have published them.
    """
    session = current()
    schema = find_type(session, job_type, app).schema if app is not None else _published(job_type)
    params = absolute_paths(job_type, fill(job_type, schema, words, verb="submit"))
    now = datetime.fromtimestamp(session.now() / 1_000_000, UTC)
    options: dict[str, Any] = {
        name: given[name] for name in ("priority", "max_attempts", "unique_key", "on_duplicate", "job_id")
    }
    options["labels"] = labels_of(given["labels"]) or None
    options["timeout"] = None if given["timeout"] is None else seconds(given["timeout"], "--timeout")
    for option, name in (("delay", "not_before"), ("expires", "not_after")):
        if given[option] is not None:
            options[name] = now + timedelta(seconds=seconds(given[option], f"--{option}"))
    options = {name: value for name, value in options.items() if value is not None}
    if app is not None and not session.is_server:
        job = application(session, app).submit(job_type, params, **options)
    else:
        job = session.jobs.submit(job_type, params, **options)
    if wait:
        return follow(session, [job], None)
    if session.json:
        say(json.dumps(job.to_dict(), ensure_ascii=False))
    elif not session.console.is_terminal:
        say(job.job_id)
    else:
        from rich.text import Text

        line = Text(glyph(session.console, job.status.value) + " ", STYLES[job.status.value])
        session.console.print(line.append(f"{job.job_id}  {job.status.value}"))
    return exits.OK


def _published(job_type: str) -> dict[str, Any]:
    try:
        return administration.published_type(current(), job_type).schema
    except UnknownJobType as unknown:
        raise click.UsageError(f"{unknown}; or say --app MODULE:APP") from None
