"""`milepost logs ID`, `show ID...`: print the log or the details of jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import click

from milepost.cli import exit_codes, formatting
from milepost.cli.commands.watch import JobFollower
from milepost.cli.context import CommandContext, current, session_options
from milepost.cli.job_selection import JobId, may_be_retried, resolve_job, shortest_id
from milepost.cli.rendering.job_detail import has_earlier_runs, print_job
from milepost.cli.rendering.live import OutageNotice, echo, echo_json, ended_text, raise_if_output_closed
from milepost.cli.rendering.terminal import MUTED, STYLES, clean
from milepost.core.events import Event, StreamPosition
from milepost.core.job import Job

LEVELS = {"warning": STYLES["stalled"], "error": STYLES["failed"], "critical": STYLES["failed"], "debug": MUTED}
BATCH = 1000


@click.command("logs")
@click.argument("word", metavar="[ID|@last]", type=JobId(), default="@last")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the job ends; Ctrl-C does not stop the job.")
@session_options
def logs(word: str, follow: bool) -> int:
    """Print the log of a job (default: the newest job)."""
    context = current()
    job = resolve_job(context, word)
    seen = 0
    for kept in _events(context, job.job_id):
        _print(context, (kept,))
        seen = kept.version
    if follow and not job.is_terminal:
        try:
            position = str(StreamPosition.of(job, seen))
            follower, outages = JobFollower(context, [job], position), OutageNotice()
            for event in follower.events():
                outages.report(follower.problem)
                if event is None:
                    raise_if_output_closed()
                else:
                    _print(context, (event,))
        except KeyboardInterrupt:
            return exit_codes.INTERRUPTED
        latest = context.manager.get_job(job.job_id)
        if latest is not None and not context.json and context.console.is_terminal:
            context.console.print(ended_text(latest), style=STYLES[latest.status.value])
    return exit_codes.OK


def _events(context: CommandContext, job_id: str) -> Iterator[Event]:
    """Yield the kept events of a job, oldest first."""
    seen = 0
    while events := context.manager.events(job_id, seen, BATCH):
        yield from events
        seen = events[-1].version
        if len(events) < BATCH:
            return


def _print(context: CommandContext, events: Iterable[Event]) -> None:
    for event in events:
        if event.kind == "log":
            for line in event.data.get("lines", ()):
                _print_line(context, event.job_id, line)


def _print_line(context: CommandContext, job_id: str, line: dict[str, Any]) -> None:
    if context.json:
        echo_json({"job_id": job_id, **line})
        return
    from rich.text import Text

    level, text = str(line.get("level", "info")), clean(line.get("text", ""))
    when = formatting.clock(datetime.fromisoformat(line["at"]), utc=context.utc) if line.get("at") else ""
    if not context.console.is_terminal:
        echo(f"{when}  {level.upper():7}  {text}")
        return
    shown = Text(f"{when}  ", MUTED)
    context.console.print(shown.append(text, LEVELS.get(level, "")), soft_wrap=True)


@click.command("show")
@click.argument("words", metavar="[ID|@last]...", type=JobId(), nargs=-1)
@session_options
def show(words: tuple[str, ...]) -> int:
    """Show the details of a job (default: the newest job)."""
    context = current()
    for at, word in enumerate(words or ("@last",)):
        (job,) = context.described(context.with_member_progress([resolve_job(context, word)]))
        if context.json:
            echo_json(job.to_dict())
            continue
        if at:
            context.console.print()
        events = list(_events(context, job.job_id)) if has_earlier_runs(job) else []
        print_job(
            context.console,
            job,
            utc=context.utc,
            short=shortest_id(context, job),
            events=events,
            instead_of_retry=_instead_of_retry(context, job) if may_be_retried(job) else None,
        )
    return exit_codes.OK


def _instead_of_retry(context: CommandContext, job: Job) -> list[str] | None:
    """Return the next steps for a job whose retry would be refused or fail at its start, else None."""
    found = context.manager.retry_check(job.job_id)
    if found.reason is None:
        return None
    if found.reason == "budget":  # a run makes a child, and no command does
        return [] if job.child_key is not None else [f"milepost submit {job.job_type} ARG... --budget NAME=AMOUNT"]
    return [] if found.other is None else [f"milepost show {found.other}"]
